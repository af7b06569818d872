#!/bin/sh
# lua5.4 under valgrind, for `make test-valgrind`.
exec valgrind --quiet --leak-check=full --show-leak-kinds=definite \
  --errors-for-leak-kinds=definite --error-exitcode=9 --child-silent-after-fork=yes \
  lua5.4 "$@"
