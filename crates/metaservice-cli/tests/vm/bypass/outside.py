"""Servers that take everything, and say what they understood: the lenient other side.

They serve at each address of their network. Each connection, request, datagram and question is a
line of stderr, and each answer says for which name it is and at which address. The first line of
stdout says that they serve.

    outside.py outside|host CHAIN KEY
"""

import selectors
import socket
import ssl
import struct
import sys
import threading

WHERE, CHAIN, KEY = sys.argv[1:]
IP_PKTINFO = 8
TCP_PORTS = [80, 853, 8000, 8001, *range(9000, 9100)]
UDP_PORTS = [53, 123, 443, 4000, 5353, 8000, *range(9000, 9100)]
NAMES = {
    "allowed.test": ["11.0.0.2"],
    "reload.test": ["11.0.0.2"],
    "tls.test": ["11.0.0.4"],
    "slow.test": ["11.0.9.9"],
    "other.test": ["11.0.0.2"],
    "xn--llowed-7uf.test": ["11.0.0.2"],
    "loopback.test": ["127.0.0.1"],
    "zero.test": ["0.0.0.0"],
    "own.test": ["11.0.0.1"],
    "private.test": ["10.0.0.2"],
    "link.test": ["169.254.7.7"],
    "metadata.test": ["169.254.169.254"],
    "provider.test": ["100.64.0.1"],
    "vendor.test": ["100.100.100.200"],
    "bench.test": ["198.18.1.0"],
    "mapped.test": ["::ffff:10.0.0.2"],
    "nat64.test": ["64:ff9b::a00:2"],
    "sixtofour.test": ["2002:a00:2::1"],
    "unique.test": ["fd00:ec2::254"],
    "loopback6.test": ["::1"],
    "both.test": ["10.0.0.2", "11.0.0.2"],
}
CHAINS = {"chain.test": "one.chain.test", "one.chain.test": "two.test", "two.test": "private.test"}
lock = threading.Lock()
asked = {}


def note(*words):
    with lock:
        print(WHERE, *words, file=sys.stderr, flush=True)


def plain(address):
    return address[0].removeprefix("::ffff:")


# HTTP


def http(stream, note_as="http"):
    """Serves requests. It is as lenient as the most lenient server, and believes the first line."""
    at = plain(stream.getsockname())
    port = stream.getsockname()[1]
    data = b""
    while True:
        while b"\n\r\n" not in data and b"\n\n" not in data:
            more = stream.recv(65536)
            if not more:
                return
            data += more
            # A line is enough for a server of lines.
            if data.startswith(b"ping\n"):
                data = data[5:]
                stream.sendall(b"pong\n")
        ends = [data.index(end) + len(end) for end in [b"\n\r\n", b"\n\n"] if end in data]
        head, data = data[: min(ends)], data[min(ends) :]
        lines = [line.rstrip(b"\r") for line in head.split(b"\n")]
        first = lines[0].split(b" ")
        target = first[1] if len(first) > 1 else b""
        fields = [line.split(b":", 1) for line in lines[1:] if b":" in line]
        fields = [(name.strip().lower(), value.strip()) for name, value in fields]
        hosts = [value for name, value in fields if name == b"host"]
        if first[0] in (b"CONNECT", b"PRI"):
            hosts = [first[0], target]
        elif b"://" in target:
            hosts.append(target.split(b"/")[2])
        length = [int(value) for name, value in fields if name == b"content-length"]
        coding = [value for name, value in fields if name == b"transfer-encoding"]
        if length:
            while len(data) < length[0]:
                data += stream.recv(65536) or b"\0" * length[0]
            data = data[length[0] :]
        elif coding:
            while b"0\r\n\r\n" not in data:
                data += stream.recv(65536) or b"0\r\n\r\n"
            data = data[data.index(b"0\r\n\r\n") + 5 :]
        served = b",".join(hosts).decode("latin1")
        note(note_as, served, "at", at, port, target.decode("latin1"))
        body = f"served {served} at {at} {port}\n".encode()
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


# TLS, as a reader of all ClientHellos


def names_of(hello):
    """The names in a ClientHello, without its header."""
    try:
        at = 34
        at += 1 + hello[at]
        at += 2 + struct.unpack_from("!H", hello, at)[0]
        at += 1 + hello[at]
        end = at + 2 + struct.unpack_from("!H", hello, at)[0]
        at += 2
        names = []
        while at < end:
            kind, length = struct.unpack_from("!2H", hello, at)
            content = hello[at + 4 : at + 4 + length]
            at += 4 + length
            if kind == 0:
                inner = 2
                while inner < len(content):
                    size = struct.unpack_from("!H", content, inner + 1)[0]
                    names.append(content[inner + 3 : inner + 3 + size].decode("latin1"))
                    inner += 3 + size
            if kind in (0xFE0D, 0xFFCE):
                names.append("hidden " + content.decode("latin1"))
        return names or ["none"]
    except (IndexError, struct.error):
        return ["broken"]


def read_tls(stream):
    at, port = plain(stream.getsockname()), 443
    data, messages = b"", b""

    def say(names):
        for name in names:
            note("tls", name, "at", at, port)
            stream.sendall(f"served {name} at {at} {port}\n".encode())

    while True:
        more = stream.recv(65536)
        if not more:
            return
        data += more
        if data[0] not in range(20, 25):
            say(["none " + data[:300].decode("latin1")])
            return
        while len(data) >= 5 and len(data) >= 5 + struct.unpack_from("!H", data, 3)[0]:
            length = struct.unpack_from("!H", data, 3)[0]
            if data[0] == 22:
                messages += data[5 : 5 + length]
            data = data[5 + length :]
        while len(messages) >= 4:
            length = int.from_bytes(messages[1:4], "big")
            if len(messages) < 4 + length:
                break
            if messages[0] == 1:
                say(names_of(messages[4 : 4 + length]))
            messages = messages[4 + length :]


# TLS, as a server


def tls(stream):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CHAIN, KEY)
    seen = []
    context.sni_callback = lambda connection, name, _: seen.append(str(name)) and None
    with context.wrap_socket(stream, server_side=True) as inner:
        note("tls", seen[-1].lower(), "at", plain(inner.getsockname()), 443)
        inner.sendall(f"served {seen[-1].lower()}\n".encode())


def serve(handler, stream):
    with stream:
        try:
            handler(stream)
        except (OSError, ssl.SSLError, ValueError) as error:
            note("error", error)


def listen(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    # The one with an address wins.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((address, port))
    listener.listen(1024)
    return listener


def accept_all(listeners):
    waiting = selectors.DefaultSelector()
    for listener, handler in listeners:
        waiting.register(listener, selectors.EVENT_READ, handler)
    while True:
        for key, _ in waiting.select():
            stream, _ = key.fileobj.accept()
            note("accept", "at", plain(stream.getsockname()), stream.getsockname()[1])
            threading.Thread(target=serve, args=(key.data, stream), daemon=True).start()


# UDP, and the resolver of the host


def answer(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin1"))
        at += 1 + query[at]
    name = ".".join(labels).lower()
    kind = struct.unpack_from("!H", query, at + 1)[0]
    note("asked", name, kind)
    if kind == 1:
        asked[name] = asked.get(name, 0) + 1
    records, owner = [], name
    while owner in CHAINS:
        records.append((owner, 5, wire(CHAINS[owner])))
        owner = CHAINS[owner]
    addresses = NAMES.get(owner, [])
    if owner == "flip.test":
        addresses = ["11.0.0.2"] if asked.get(owner, 0) <= 1 else ["10.0.0.2"]
    if owner.endswith((".many.test", ".allowed.test")):
        addresses = ["11.0.0.2"]
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if kind == (28 if ":" in address else 1):
            records.append((owner, kind, socket.inet_pton(family, address)))
    found = addresses or records
    header = struct.pack("!2s5H", query[:2], 0x8180 | (0 if found else 3), 1, len(records), 0, 0)
    body = query[12 : at + 5]
    for owner, kind, data in records:
        body += wire(owner) + struct.pack("!2HIH", kind, 1, 0, len(data)) + data
    return header + body


def wire(name):
    return b"".join(bytes([len(x)]) + x.encode("latin1") for x in name.split(".")) + b"\0"


def exchange(server, port):
    data, control, _, peer = server.recvmsg(65536, 64)
    # The answer comes from the address to which the question went.
    info = next(data for level, kind, data in control if kind == IP_PKTINFO)
    at = socket.inet_ntoa(info[8:12])
    if port == 53:
        reply = answer(data)
    else:
        note("udp", data[:40].decode("latin1").rstrip("\0"), "at", at, port)
        reply = f"served at {at} {port}".encode()
    source = struct.pack("!i4s4s", 0, info[8:12], b"\0" * 4)
    server.sendmsg([reply], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, peer)


def exchange_all():
    waiting = selectors.DefaultSelector()
    for port in UDP_PORTS:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        server.bind(("", port))
        waiting.register(server, selectors.EVENT_READ, port)
    yield
    while True:
        for key, _ in waiting.select():
            try:
                exchange(key.fileobj, key.data)
            except (OSError, IndexError, struct.error):
                note("odd datagram at port", key.data)


def main():
    listeners = [(listen("::", port), http) for port in TCP_PORTS]
    listeners.append((listen("::", 443), read_tls))
    if WHERE == "outside":
        listeners.append((listen("11.0.0.4", 443), tls))
    datagrams = exchange_all()
    next(datagrams)
    threading.Thread(target=accept_all, args=(listeners,), daemon=True).start()
    print("serving", flush=True)
    next(datagrams)


main()
