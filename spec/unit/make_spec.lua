-- What the Makefile says to who has not all that it needs, and what it does after an install.

local support = require "spec.support"
local fcproc = require "fcproc"

-- make with nothing of the make that runs the specs: { status, out, err }.
local function make(...)
  local argv = { "env", "-u", "MAKEFLAGS", "-u", "MFLAGS", "-u", "MAKELEVEL", "make", "-s", ... }
  local result, err = fcproc.runner():run(argv, { env = { PATH = os.getenv("PATH"), LC_ALL = "C" } })
  result = result or err
  return { status = result.status, out = result.stdout, err = result.stderr }
end

local function script(dir, name, text)
  support.write_file(dir:file(name), "#!/bin/sh\n" .. text)
  support.sh{ "chmod", "755", dir:file(name) }
  return dir:file(name)
end

describe("make", function()
  before_each(support.before_each)
  after_each(support.after_each)

  it("names all that is missing to build at once, and is quiet about it before", function()
    local dir <close> = support.folder()
    local none = script(dir, "pkg-config", [[
case "$1" in --version) echo 1 ;; *) echo "Package $2 was not found" >&2; exit 1 ;; esac]])
    local done = make("needs", "PKG_CONFIG=" .. none)
    assert.are.equal(2, done.status)
    for _, name in ipairs{ "lua5.4 (Debian: liblua5.4-dev), ", "libnl-3.0 (Debian: libnl-3-dev), ",
      "libcurl (Debian: libcurl4-openssl-dev), ", "libcrypto (Debian: libssl-dev), ",
      "libarchive (Debian: libarchive-dev), ", "zlib (Debian: zlib1g-dev), ",
      "ext2fs (Debian: libext2fs-dev), ", "com_err (Debian: comerr-dev); make deps installs" } do
      assert.is_truthy(done.err:find(name, 1, true), done.err)
    end
    done = make("needs", "AGENT_CC=/no/musl-gcc")
    assert.are.equal(2, done.status)
    assert.is_truthy(done.err:find("static programs, /no/musl-gcc is missing (Debian: musl-tools)", 1, true),
      done.err)
    assert.is_nil(make("needs", "PKG_CONFIG=" .. none, "LUA_INCDIR=/x").err:find("liblua", 1, true))
    done = make("needs", "PKG_CONFIG=/no/pkg-config")
    assert.is_truthy(done.err:find("/no/pkg-config is missing (Debian: pkg-config)", 1, true), done.err)
    done = make("needs-argparse", "LUA=false")
    assert.is_truthy(done.err:find("lua-argparse", 1, true), done.err)
    for _, program in ipairs{ none, "/no/pkg-config" } do -- as make demo does, before it installs it
      done = make("-n", "clean", "PKG_CONFIG=" .. program)
      assert.are.same({ 0, "" }, { done.status, done.err })
    end
    assert.are.same({ status = 0, out = "", err = "" }, make("needs", "needs-argparse"))
  end)

  it("tells an ordinary user which packages root is to install", function()
    local argv = { "setpriv", "--reuid", "65534", "--clear-groups", "env", "-u", "MAKEFLAGS",
      "-u", "MAKELEVEL", "make", "-s", "deps", "DEPS_BUILD=make", "DEPS_RUN=no-such-one make no-such-two" }
    local err = support.fails("exit_status", fcproc.runner():run(argv))
    assert.is_truthy(err.stderr:find("packages are missing; as root: apt-get install --no-install-recommends "
      .. "no-such-one no-such-two", 1, true), err.stderr)
    assert.are.equal("", err.stdout)
  end)

  it("writes an installed file's place anew when another is asked for, and not else", function()
    local dir <close> = support.folder()
    local function prefix(place)
      local done = make("BUILD=" .. dir.path, "PREFIX=" .. place, dir:file("fcproc.pc"))
      assert.are.same({ 0, "" }, { done.status, done.err })
      return support.read_file(dir:file("fcproc.pc")):match("prefix=([^\n]*)"),
        support.sh{ "stat", "-c", "%y", dir:file("places") }
    end
    local first, made = prefix("/one")
    assert.are.equal("/one", first)
    assert.are.same({ "/one", made }, { prefix("/one") })
    assert.are.equal("/two", (prefix("/two")))
  end)

  it("refreshes the loader's cache when libraries were put where it looks", function()
    local dir <close> = support.folder()
    local fake = script(dir, "ldconfig", ([[
case "$*" in *-v*) printf '/usr/lib: (from x)\n\tlibx.so -> libx.so.1\n' ;; *) echo ran >>%s/log ;; esac]])
      :format(dir.path))
    for _, case in ipairs{ { "LIBDIR=/usr/lib", true }, { "LIBDIR=/opt/lib" }, { "LIBDIR=/usr/li" },
      { "LIBDIR=/usr/lib", false, "DESTDIR=/stage" } } do
      os.remove(dir:file("log"))
      local done = make("linker-cache", "LDCONFIG=" .. fake, case[1], case[3])
      assert.are.same({ 0, "" }, { done.status, done.err })
      assert.are.equal(case[2] and "ran\n" or nil, support.read_file(dir:file("log")), case[1])
    end
  end)
end)
