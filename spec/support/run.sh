#!/bin/sh
# Runs busted with the given interpreter over the given folders and closes with the plain line
# "N passed, N failed". A pending test counts as failed: nothing is skipped here. What a sanitizer
# or valgrind reports at the end of the process is a failure too.
set -u
lua=$1
shift
[ "$(id -u)" = 0 ] || { echo "these tests need root"; echo "0 passed, 1 failed"; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
{ busted --lua="$lua" --output=spec/support/output.lua "$@" 2>&1; echo $? >"$dir/status"; } |
  tee "$dir/log"
status=$(cat "$dir/status")
last=$(grep -aE '^[0-9]+ passed, [0-9]+ failed$' "$dir/log" | tail -n 1)
case $last in
*" passed, 0 failed") [ "$status" = 0 ] && exit 0 ;;
*" failed") exit 1 ;;
esac
echo "the suite did not end well (status $status)"
echo "${last%% *} passed, 1 failed" | sed 's/^ /0 /'
exit 1
