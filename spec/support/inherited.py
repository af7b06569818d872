# A listener that dies and leaves its socket to a child: inherited.py SOCKET. Prints the child's
# pid once its parent, the listener, is gone.
import os
import socket
import sys
import time

s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
tell, told = os.pipe()
listener = os.fork()
if listener == 0:
    s.listen(50) # who looks takes a place, and nobody accepts
    if os.fork() == 0:
        os.write(told, b"%d\n" % os.getpid())
        for fd in (1, 2, tell, told):
            os.close(fd)
        time.sleep(60)
    os._exit(0)
os.waitpid(listener, 0)
print(os.read(tell, 20).decode(), end="", flush=True)
