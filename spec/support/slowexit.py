# Traces a process and its children, which take their time to end: slowexit.py PID SECONDS READY. Makes READY
# when it does.
import ctypes, os, signal, sys, time

PTRACE_CONT, PTRACE_SEIZE, PTRACE_LISTEN, WALL = 7, 0x4206, 0x4208, 0x40000000
FORK, VFORK, CLONE, EXIT = 1 << 1, 1 << 2, 1 << 3, 1 << 6
EVENT_EXIT, EVENT_STOP = 6, 128
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
root, seconds, ready = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
if libc.ptrace(PTRACE_SEIZE, root, None, FORK | VFORK | CLONE | EXIT) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
open(ready, "w").close()
due = {}
while True:
    pid, status = os.waitpid(-1, WALL | (os.WNOHANG if due else 0))
    now = time.monotonic()
    for late in [p for p, when in due.items() if when <= now]:
        del due[late]
        libc.ptrace(PTRACE_CONT, late, None, None)
    if pid == 0:
        time.sleep(0.001)
    elif os.WIFSTOPPED(status):
        event, sig = status >> 16, os.WSTOPSIG(status)
        if event == EVENT_EXIT:
            due[pid] = now + seconds
        elif event == EVENT_STOP and sig != signal.SIGTRAP:
            libc.ptrace(PTRACE_LISTEN, pid, None, None)
        else:
            libc.ptrace(PTRACE_CONT, pid, None, None if event else sig)
