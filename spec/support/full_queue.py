# full_queue.py SOCKET GO: listens with a full accept queue, so that every connect is told to try
# again, until the file GO is there. Then it answers each request with 204.
import os
import socket
import sys
import time

path, go = sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(0)
clients = []
while True:
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    try:
        client.connect(path)
    except BlockingIOError:
        break
    clients.append(client)
print("full", flush=True)
while not os.path.exists(go):
    time.sleep(0.01)
for client in clients:
    client.close()
server.listen(16)
while True:
    peer, _ = server.accept()
    if peer.recv(4096):
        peer.sendall(b"HTTP/1.1 204 \r\nConnection: close\r\n\r\n")
    peer.close()
