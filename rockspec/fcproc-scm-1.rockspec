rockspec_format = "3.0"
package = "fcproc"
version = "scm-1"
source = { url = "git+https://github.com/fcproc/fcproc.git" }
description = {
  summary = "Host-side primitives that launch, inspect and tear down Firecracker microVMs",
  detailed = [[
Bridges and TAPs over netlink, processes by pidfd, the API over its unix socket: natively, without
forking ip, pgrep, chown or kill; cancellable, race-free, with exact errors.]],
  license = "MIT",
}
supported_platforms = { "linux" }
dependencies = { "lua >= 5.4, < 5.5", "lua-cjson >= 2.1", "argparse >= 0.7" }
-- Only the libraries are looked for: LuaRocks does not search Debian's multiarch include folders.
external_dependencies = {
  LIBNL = { library = "nl-3" },
  LIBNL_NF = { library = "nl-nf-3" },
  LIBCURL = { library = "curl" },
  LIBCRYPTO = { library = "crypto" },
  LIBARCHIVE = { library = "archive" },
  ZLIB = { library = "z" },
  LIBEXT2FS = { library = "ext2fs" },
}
test = { type = "command", command = "make test" }
build = {
  type = "make",
  build_target = "module",
  install_target = "install-rock",
  build_variables = {
    CFLAGS = "$(CFLAGS)", LIBFLAG = "$(LIBFLAG)", LUA_INCDIR = "$(LUA_INCDIR)", LUA = "$(LUA)",
  },
  install_variables = {
    INST_LIBDIR = "$(LIBDIR)", INST_LUADIR = "$(LUADIR)", INST_BINDIR = "$(BINDIR)",
  },
}
