# Servers and clients for the specs of the relay: relay.py WHAT ARGUMENTS. A server says "listening".
import hashlib, os, resource, select, socket, sys, threading, time

resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

def tell(*words):
    print(*words, flush=True)

def connect(port, host="127.83.0.1"):
    s = socket.create_connection((host, int(port)), 10)
    s.settimeout(20)
    return s

def drain(s):
    data = hashlib.sha256()
    while True:
        part = s.recv(65536)
        if not part:
            return data.hexdigest()
        data.update(part)

# Answers on ports 81 to 86 of TCP, 53 (echo) and 54 (a flood) of UDP.
def serve():
    def digest(s):        # 81: says what it has read, once that has ended
        s.sendall(drain(s).encode())
    def first(s):         # 82: ends first, then reads on
        s.sendall(b"x" * 3000000)
        s.shutdown(socket.SHUT_WR)
        tell("read", drain(s))
    def flood(s):         # 83: sends for ever
        sent = 0
        try:
            while True:
                sent += s.send(b"y" * 65536)
        except OSError:
            tell("flooded", sent)
    def hello(s):         # 84: answers at once, and stays
        s.sendall(b"hello")
        s.recv(1)
    def resets(s):        # 85
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    def deaf(s):          # 86: never reads
        s.sendall(b"deaf")
        time.sleep(60)
    def accept(listener, fn):
        while True:
            s, _ = listener.accept()
            threading.Thread(target=run, args=(fn, s), daemon=True).start()
    def run(fn, s):
        try:
            fn(s)
        except OSError:
            pass
        s.close()
    threading.stack_size(128 * 1024)
    for i, fn in enumerate([digest, first, flood, hello, resets, deaf]):
        listener = socket.create_server(("127.0.0.1", 81 + i), backlog=2048)
        threading.Thread(target=accept, args=(listener, fn), daemon=True).start()
    udp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for i, s in enumerate(udp):
        s.bind(("127.0.0.1", 53 + i))
    def drown(to):
        while True:
            udp[1].sendto(b"z" * 1000, to)
    tell("listening")
    while True:
        for s in select.select(udp, [], [])[0]:
            data, peer = s.recvfrom(65536)
            if s is udp[1]:
                threading.Thread(target=drown, args=(peer,), daemon=True).start()
            else:
                s.sendto(data, peer)

def half():
    data = os.urandom(5000000)
    wanted = hashlib.sha256(data).hexdigest()
    s = connect(sys.argv[2])
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    tell(s.recv(100).decode() == wanted, s.recv(1) == b"")
    s = connect(sys.argv[3])
    tell(drain(s) == hashlib.sha256(b"x" * 3000000).hexdigest())
    s.sendall(data)
    s.close()
    tell(wanted)

# Many at once: all are answered while all are open.
def many():
    all = []
    for _ in range(int(sys.argv[3])):
        all.append(connect(sys.argv[2]))
    tell(sum(s.recv(5) == b"hello" for s in all))
    sys.stdin.readline()
    for s in all:
        s.close()
    tell("closed")

# Each in its turn, as a slot comes free.
def turns():
    right = []
    def one():
        s = connect(sys.argv[2])
        if s.recv(5) == b"hello":
            right.append(s)
        s.close()
    threads = [threading.Thread(target=one) for _ in range(int(sys.argv[3]))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    tell(len(right))

# Never reads; says so, and stays.
def stall():
    all = []
    for _ in range(int(sys.argv[3])):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.83.0.1", int(sys.argv[2])))
        all.append(s)
    tell("stalled")
    sys.stdin.readline()

# What it sends to somebody who does not read, until nothing more is taken.
def push():
    s = connect(sys.argv[2])
    s.settimeout(1)
    sent = 0
    try:
        while True:
            sent += s.send(b"p" * 65536)
    except OSError:
        pass
    tell(sent)

def refused():
    for port in sys.argv[2:]:
        try:
            s = connect(port)
            tell("end" if s.recv(1) == b"" else "data")
        except ConnectionResetError:
            tell("reset")

def udp():
    host, port, n = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    right = 0
    all = []
    for i in range(n):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.settimeout(5)
        s.connect((host, port))  # an answer from another address would not be taken
        s.send(b"%d" % i)
        right += s.recv(100) == b"%d" % i
        all.append(s)
    tell(right)
    for s in all[:2] + all[-2:]:  # also whose flow has made room for another's
        s.send(b"again")
        right += s.recv(100) == b"again"
    tell(right)

def drown():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"", ("127.83.0.1", int(sys.argv[2])))
    s.recv(2000)
    tell("drowning")
    sys.stdin.readline()

globals()[sys.argv[1]]()
