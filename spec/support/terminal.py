# Runs a command at a terminal of its own, and types: terminal.py [WANTED KEYS]... -- COMMAND...
# When WANTED has been shown, KEYS are typed ("\x1d" as in Python), or a signal is sent ("signal:TERM").
# Writes what was shown, then a line with the exit status and whether the terminal is as it was.
import fcntl
import os
import pty
import select
import signal
import sys
import termios
import time

split = sys.argv.index("--")
steps, command = sys.argv[1:split], sys.argv[split + 1:]
master, slave = pty.openpty()
before = termios.tcgetattr(slave)
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(slave, number)
    os.execvp(command[0], command)

shown, deadline = b"", time.monotonic() + 30


def read():
    global shown
    if select.select([master], [], [], 0.02)[0]:
        shown += os.read(master, 65536)
    if time.monotonic() > deadline:
        os.kill(child, signal.SIGKILL)
        sys.exit("too late; shown so far:\n" + shown.decode())


for wanted, keys in zip(steps[::2], steps[1::2]):
    while wanted.encode() not in shown:
        read()
    if keys.startswith("signal:"):
        os.kill(child, getattr(signal, "SIG" + keys[7:]))
    else:
        os.write(master, keys.encode().decode("unicode_escape").encode())
ended = 0
while not ended:
    read()
    ended, status = os.waitpid(child, os.WNOHANG)
while select.select([master], [], [], 0)[0]:
    shown += os.read(master, 65536)
print(shown.decode())
print("status", os.waitstatus_to_exitcode(status), "as before" if termios.tcgetattr(slave) == before else "changed")
