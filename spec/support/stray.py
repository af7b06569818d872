# What a VMM that was broken into may leave behind: stray.py PID UID GID KINDS PROCS...
# In the jail of the process PID, as its user, in the cgroups of these cgroup.procs files. It says
# "there" when each kind of stray is where it wants to be, and ends.

import ctypes
import os
import signal
import sys
import time

NEWNS, NEWUSER, NEWPID = 0x20000, 0x10000000, 0x20000000
libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    if libc[name](*args) < 0:
        raise OSError(ctypes.get_errno(), name)


pid, uid, gid, kinds = sys.argv[1:5]
for procs in sys.argv[5:]:
    with open(procs, "w") as file:
        file.write(str(os.getpid()))
jail = os.open("/proc/%s/ns/mnt" % pid, os.O_RDONLY)
call("setns", jail, NEWNS)
os.chdir("/")
os.setgroups([])
os.setresgid(int(gid), int(gid), int(gid))
os.setresuid(int(uid), int(uid), int(uid))
there_r, there_w = os.pipe()
signal.alarm(20)


def stray(place):
    if os.fork() > 0:
        os.read(there_r, 1)
        return
    signal.alarm(20)
    place()
    signal.alarm(0)
    os.write(there_w, b".")
    time.sleep(1000)
    os._exit(0)


def session():
    for _ in range(2):
        if os.fork() > 0:
            os._exit(0)
        os.setsid()


def another_root():
    os.makedirs("/other/old")
    call("unshare", NEWUSER | NEWNS)
    call("mount", b"/other", b"/other", None, 0x5000, None)  # MS_BIND | MS_REC
    call("syscall", 155, b"/other", b"/other/old")  # pivot_root
    os.chdir("/")


def another_pid_namespace():
    call("unshare", NEWUSER | NEWPID)
    if os.fork() > 0:
        time.sleep(1000)


for kind in kinds.split(","):
    stray({"child": lambda: None, "session": session, "root": another_root,
           "pid_namespace": another_pid_namespace}[kind])
print("there", flush=True)
