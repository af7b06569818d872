#!/bin/sh
# The rock, as a user would install it: made, packed and installed into scratch trees, used by a
# plain lua5.4 outside the checkout, removed again with nothing left. Closes with "N passed, N failed".
set -u
top=$(pwd)
PATH=$PATH:$top/build/bin
outer=$(mktemp -d)
trap 'rm -rf "$outer"' EXIT
scratch="$outer/rock trees" # blanks work; a quote in its tree is too much for LuaRocks 3.8
prefix="$scratch/the user's prefix"
mkdir "$scratch"
passed=0
failed=0

check() { # check TEXT COMMAND...: runs it, shows its output only when it fails
  text=$1
  shift
  if "$@" >"$scratch/log" 2>&1; then
    passed=$((passed + 1))
    echo "ok    $text"
  else
    failed=$((failed + 1))
    echo "FAIL  $text"
    sed 's/^/      /' "$scratch/log"
  fi
}

rocks() { # Debian's own modules satisfy the dependencies, so they are not looked for as rocks
  luarocks --lua-version 5.4 --tree "$1" "$2" --deps-mode none "$3"
}

lua_in() { # lua_in TREE ARGUMENTS...
  tree=$1
  shift
  (cd / && LUA_PATH="$tree/share/lua/5.4/?.lua;$tree/share/lua/5.4/?/init.lua;;" \
    LUA_CPATH="$tree/lib/lua/5.4/?.so;;" lua5.4 "$@")
}

# The installed command, outside the checkout, in a folder of its own.
command_works() { # command_works FCPROC
  (cd / && export FCPROC_RUNTIME_DIR="$scratch/run" && set -e
    "$1" version | grep -q '^firecracker *[0-9]'
    [ "$("$1" run --id rock --detach)" = rock ]
    "$1" ps | grep -q '^rock *running'
    "$1" stop rock
    [ "$("$1" --json ps)" = '[]' ])
}

nothing_left() {
  ! find "$1" -path '*fcproc*' -print | grep .
}

check "luarocks make" rocks "$scratch/made" make "$top/rockspec/fcproc-scm-1.rockspec"
check "require outside the checkout" lua_in "$scratch/made" -e '
  local path = package.searchpath("fcproc", package.path)
  assert(path:find("/made/", 1, true), path)
  local guest = assert(require("fcproc").guest_path())
  assert(guest:find("/made/", 1, true), guest)'
check "the demo from the rock" lua_in "$scratch/made" "$top/examples/hello.lua"
check "the command from the rock" command_works "$scratch/made/bin/fcproc"
check "luarocks pack" sh -c 'cd "$1" && luarocks --lua-version 5.4 --tree "$1/made" pack fcproc' sh "$scratch"
check "luarocks install of the packed rock" rocks "$scratch/second" install "$(ls "$scratch"/*.rock)"
check "the demo from the packed rock" lua_in "$scratch/second" "$top/examples/hello.lua"
check "the command from the packed rock" command_works "$scratch/second/bin/fcproc"
check "luarocks remove" rocks "$scratch/made" remove fcproc
check "nothing is left of it" nothing_left "$scratch/made"
check "make install, away from where Lua looks" \
  make -s install BUILD="$outer/build" PREFIX="$prefix"
check "the command from make install" command_works "$prefix/bin/fcproc"
check "make uninstall" make -s uninstall PREFIX="$prefix"
check "nothing is left of that" nothing_left "$prefix"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
