# Exchanges two files as fast as it can, until it is killed: flip.py A B.
import ctypes
import sys

libc = ctypes.CDLL(None, use_errno=True)
a, b = (name.encode() for name in sys.argv[1:3])
while libc.renameat2(-100, a, -100, b, 2) == 0:  # AT_FDCWD, RENAME_EXCHANGE
    pass
sys.exit("renameat2: errno %d" % ctypes.get_errno())
