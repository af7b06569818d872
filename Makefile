# SPDX-License-Identifier: MIT
# The only list of sources. `make help` says what there is to make.

VERSION := 0.1.0

# What an installer sets, and LuaRocks on its command line.
PREFIX ?= /usr/local
DESTDIR ?=
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
INST_LIBDIR ?= $(LIBDIR)/lua/5.4
INST_LUADIR ?= $(PREFIX)/share/lua/5.4
CC ?= gcc
CFLAGS ?= -O2 -g
LIBFLAG ?= -shared
PKG_CONFIG ?= pkg-config
LUA_PC ?= lua5.4
LUA ?= lua5.4
WERROR ?=

# LuaRocks overrides CFLAGS, so what must be is in variables that it does not know.
ifdef SANITIZE
BUILD ?= build/sanitize
SANITIZER := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1
else
BUILD ?= build
HARDENING := -D_FORTIFY_SOURCE=2
endif
LUA_CFLAGS := $(if $(LUA_INCDIR),-I$(LUA_INCDIR),$(shell $(PKG_CONFIG) --cflags $(LUA_PC)))
LIBS_PC := libnl-3.0 libcurl
BASE_CFLAGS := -std=gnu17 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread \
	-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wvla -Werror=implicit $(WERROR) \
	-Icsrc/include -MMD -MP $(HARDENING) $(SANITIZER)
CORE_CFLAGS := $(BASE_CFLAGS) $(shell $(PKG_CONFIG) --cflags $(LIBS_PC)) \
	-DFCPROC_GUEST_PATH='"$(INST_LIBDIR)/fcproc/guest.elf"'
CORE_LIBS := $(shell $(PKG_CONFIG) --libs $(LIBS_PC)) -pthread
# Threads may still run our code when a Lua state is closed, so the module is never unloaded.
LINK_FLAGS := -Wl,-z,relro,-z,now,-z,nodelete -Wl,--no-undefined-version $(SANITIZER)

CORE := error context op path socket procfs process identity netns spawn command netlink link tap \
	removal unixhttp guest
BINDING := core error context op path process spawn net client
LUA_FILES := init api config context error identity loop manager options process runner waiters
GUEST :=
ifeq ($(shell uname -m),x86_64)
GUEST := $(BUILD)/fcproc/guest.elf
endif

CORE_OBJS := $(CORE:%=$(BUILD)/obj/core/%.o)
BINDING_OBJS := $(BINDING:%=$(BUILD)/obj/lua/%.o)
LUA_SOURCES := $(LUA_FILES:%=lua/fcproc/%.lua)

all: module library lua-library

module: $(BUILD)/fcproc/core.so $(GUEST)

library: $(BUILD)/libfcproc.a $(BUILD)/libfcproc.so $(BUILD)/fcproc.pc

lua-library: $(BUILD)/libfcproc-lua.a $(BUILD)/libfcproc-lua.so $(BUILD)/fcproc-lua.pc

$(BUILD)/obj/core/%.o: csrc/core/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(CORE_CFLAGS) -c $< -o $@

$(BUILD)/obj/lua/%.o: csrc/lua/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(BASE_CFLAGS) $(LUA_CFLAGS) -c $< -o $@

$(BUILD)/fcproc/core.so: $(CORE_OBJS) $(BINDING_OBJS) csrc/lua/module.map
	@mkdir -p $(@D)
	$(CC) $(LIBFLAG) $(CFLAGS) $(LINK_FLAGS) -Wl,--version-script=csrc/lua/module.map \
		-o $@ $(CORE_OBJS) $(BINDING_OBJS) $(CORE_LIBS)

$(BUILD)/libfcproc.a: $(CORE_OBJS)
	rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/libfcproc.so: $(CORE_OBJS) csrc/core/libfcproc.map
	$(CC) -shared $(CFLAGS) $(LINK_FLAGS) -Wl,--version-script=csrc/core/libfcproc.map \
		-Wl,-soname,libfcproc.so.0 -o $@ $(CORE_OBJS) $(CORE_LIBS)
	ln -sf libfcproc.so $@.0
