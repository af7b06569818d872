# Traces a process without stopping it: tracer.py PID READY GATE. Makes READY, and waits for its end,
# without which its parent sees none, when GATE is there.
import ctypes, os, sys, time

PTRACE_SEIZE, WALL = 0x4206, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
pid, ready, gate = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if libc.ptrace(PTRACE_SEIZE, pid, None, None) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
open(ready, "w").close()
while not os.path.exists(gate):
    time.sleep(0.01)
os.waitpid(pid, WALL)
