"""Connections to an allowed name whose content is for another one."""

import ssl
import struct

from probe import case, connect, get, hear, say

NAME = "allowed.test"
OTHER = "other.test"


def all_cases():
    requests()
    hellos()
    sessions()


# HTTP on port 80


def requested(*pieces, want=OTHER, first=None):
    """Whether the outside serves what the pieces ask for. `first`: a request before them."""
    with connect(NAME, 80) as stream:
        if first:
            say(stream, first)
            if b"served" not in hear(stream, b" 80\n"):
                return False
        say(stream, *pieces)
        # The last answer counts.
        heard = b""
        wanted = [f"served {want}".encode(), f",{want}".encode()]
        while not any(text in heard for text in wanted):
            more = stream.recv(65536)
            if not more:
                return False
            heard += more
        return True


def requests():
    control = [("the name", NAME), ("mixed case", "ALLOWED.Test"), ("its port", NAME + ":80")]
    for text, host in [*control, ("a trailing dot", NAME + ".")]:
        case(f"Host with {text}", lambda h=host: requested(get(h), want=h), legitimate=True)
    for text, host in [
        ("another name", OTHER),
        ("another name and a dot", OTHER + "."),
        ("a name below", "www." + NAME),
        ("another port", NAME + ":8000"),
        ("the address", "11.0.0.2"),
        ("[another name]", f"[{OTHER}]"),
        ("[the name]", f"[{NAME}]"),
        ("[an address]", "[::ffff:11.0.0.2]"),
        ("a user", f"{NAME}@{OTHER}"),
        ("two names", f"{NAME},{OTHER}"),
        ("a name and a space", f"{NAME} {OTHER}"),
        ("punycode", "xn--llowed-7uf.test"),
        ("a fullwidth dot", "allowed\N{FULLWIDTH FULL STOP}test"),
        ("a zero byte", f"{NAME}\0.{OTHER}"),
        ("nothing", ""),
    ]:
        case(f"Host with {text}", lambda h=host: requested_as(h))
    absolute = f"GET http://{OTHER}/ HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
    second = get(OTHER)
    hidden = b"5\r\n" + second
    body = b"POST / HTTP/1.1\r\nHost: allowed.test\r\n"
    for text, pieces, first in [
        ("second Host on a kept-alive connection", [second], get(NAME)),
        ("second Host in one packet", [get(NAME) + second], None),
        ("Host split over packets", [second[:20], second[20:24], second[24:]], None),
        ("Host byte by byte", [second[n : n + 1] for n in range(len(second))], None),
        ("absolute form", [absolute], None),
        ("absolute form with a scheme in capitals", [absolute.replace(b"http:", b"HTTP:")], None),
        ("absolute form of https", [absolute.replace(b"http:", b"https:")], None),
        ("absolute form on a kept-alive connection", [absolute], get(NAME)),
        ("two Hosts", [b"GET / HTTP/1.1\r\nHost: allowed.test\r\nHost: other.test\r\n\r\n"], None),
        ("Host and spaces", [b"GET / HTTP/1.1\r\nHost : other.test\r\n\r\n"], None),
        ("Host with line feeds", [b"GET / HTTP/1.1\nHost: other.test\n\n"], None),
        (
            "Host after a line feed",
            [b"GET / HTTP/1.1\r\nHost: allowed.test\r\nA: b\nHost: other.test\r\n\r\n"],
            None,
        ),
        ("HTTP/1.0", [b"GET / HTTP/1.0\r\nHost: other.test\r\n\r\n"], None),
        (
            "length and coding",
            [body + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + hidden],
            None,
        ),
        ("two lengths", [body + b"Content-Length: 3\r\nContent-Length: 90\r\n\r\n" + hidden], None),
        ("length with a sign", [body + b"Content-Length: +3\r\n\r\n" + hidden], None),
        ("request after a body", [body + b"Content-Length: 3\r\n\r\n" + hidden], None),
        (
            "request after chunks",
            [body + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" + second],
            None,
        ),
        (
            "request after an upgrade",
            [b"GET / HTTP/1.1\r\nHost: allowed.test\r\nUpgrade: websocket\r\n\r\n" + second],
            None,
        ),
    ]:
        case(f"HTTP: {text}", lambda p=pieces, f=first: requested(*p, first=f))
    connects = f"CONNECT {OTHER}:443 HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
    case("HTTP: CONNECT", lambda: requested(connects, want="CONNECT"))
    own = f"CONNECT {NAME}:80 HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
    case("HTTP: CONNECT to the name itself", lambda: requested(own, want="CONNECT"))
    late = lambda: requested(connects, want="CONNECT", first=get(NAME))
    case("HTTP: CONNECT on a kept-alive connection", late)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    upgrade = b"GET / HTTP/1.1\r\nHost: allowed.test\r\nUpgrade: h2c\r\n\r\n"
    case("HTTP: upgrade to HTTP/2", lambda: requested(upgrade, preface, want="PRI"))
    case("HTTP: HTTP/2 at once", lambda: requested(preface, want="PRI"))
    case("HTTP: TLS on port 80", lambda: requested(record(hello(OTHER)) + b"\n\n", want=""))


def requested_as(host):
    with connect(NAME, 80) as stream:
        say(stream, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return b"served" in hear(stream)


# TLS on port 443, to a reader of ClientHellos


def extension(kind, content):
    return struct.pack("!2H", kind, len(content)) + content


def sni(*names):
    entries = b"".join(b"\0" + struct.pack("!H", len(n)) + n.encode("latin1") for n in names)
    return extension(0, struct.pack("!H", len(entries)) + entries)


def hello(name=None, before=b"", after=b""):
    """The message, with its header."""
    extensions = before + (sni(name) if name else b"") + after
    body = b"\3\3" + bytes(range(32)) + b"\0" + b"\0\2\x13\1" + b"\1\0"
    body += struct.pack("!H", len(extensions)) + extensions
    return b"\1" + len(body).to_bytes(3, "big") + body


def record(message, kind=22):
    pieces = [message[at : at + 16384] for at in range(0, len(message), 16384)]
    return b"".join(bytes([kind, 3, 1]) + struct.pack("!H", len(p)) + p for p in pieces)


def records(message, size):
    return b"".join(record(message[at : at + size]) for at in range(0, len(message), size))


def greeted(*pieces, want=OTHER):
    with connect(NAME, 443) as stream:
        say(stream, *pieces)
        heard = b""
        while f"served {want}".encode() not in heard:
            more = stream.recv(65536)
            if not more:
                return False
            heard += more
        return True


def hellos():
    own, other = hello(NAME), hello(OTHER)
    grease = extension(0x5A5A, b"") + extension(51, bytes(1216 + 8)) + extension(21, bytes(9000))
    for text, pieces, want in [
        ("the name", [record(own)], NAME),
        ("the name in capitals", [record(hello("ALLOWED.test"))], "ALLOWED.test"),
        ("the name, late and split", [*cut(records(hello(NAME, grease), 700), 900)], NAME),
    ]:
        case(f"TLS: {text}", lambda p=pieces, w=want: greeted(*p, want=w), legitimate=True)
    ech = extension(0xFE0D, b"\0" + OTHER.encode())
    for text, pieces, want in [
        ("another name", [record(other)], OTHER),
        ("another name in mixed case", [record(hello("Other.Test"))], "Other.Test"),
        ("a name below", [record(hello("www." + NAME))], "www."),
        ("a name with a final dot", [record(hello(NAME + "."))], NAME + "."),
        ("a name with a zero byte", [record(hello(NAME + "\0"))], NAME + "\0"),
        ("an address as the name", [record(hello("11.0.0.2"))], "11"),
        ("punycode", [record(hello("xn--llowed-7uf.test"))], "xn--"),
        ("no name", [record(hello())], "none"),
        ("an empty name", [record(hello(after=sni("")))], ""),
        ("two names in one extension", [record(hello(after=sni(NAME, OTHER)))], OTHER),
        ("two extensions with a name", [record(hello(NAME, after=sni(OTHER)))], OTHER),
        ("another name byte by byte", [*cut(record(other), 1)], OTHER),
        ("another name over many records", [records(other, 5)], OTHER),
        ("another name late", [record(hello(OTHER, grease))], OTHER),
        (
            "another name late, over records and packets",
            [*cut(records(hello(OTHER, grease), 900), 700)],
            OTHER,
        ),
        ("a name beyond the limit", [record(hello(OTHER, extension(21, bytes(40000))))], OTHER),
        ("ECH", [record(hello(NAME, after=ech))], "hidden"),
        ("ECH without a name", [record(hello(after=ech))], "hidden"),
        ("encrypted SNI", [record(hello(after=extension(0xFFCE, OTHER.encode())))], "hidden"),
        ("two ClientHellos in one record", [record(own + other)], OTHER),
        ("two ClientHellos in one packet", [record(own) + record(other)], OTHER),
        ("two ClientHellos in two packets", [record(own), record(other)], OTHER),
        ("a second ClientHello over records", [record(own), records(other, 3)], OTHER),
        (
            "a second ClientHello after a change of cipher",
            [record(own), record(b"\1", 20) + record(other)],
            OTHER,
        ),
        (
            "a second ClientHello after data",
            [record(own), record(bytes(40), 23), record(other)],
            OTHER,
        ),
        ("a ClientHello in data", [record(other, 23) + record(other)], OTHER),
        ("an empty record first", [bytes([22, 3, 1, 0, 0]) + record(other)], OTHER),
        ("SSL 2", [b"\x80\x2e\1\0\2" + bytes(43)], "none"),
        ("HTTP on port 443", [get(OTHER)], "none"),
        ("SSH on port 443", [b"SSH-2.0-a\r\n"], "none"),
    ]:
        case(f"TLS: {text}", lambda p=pieces, w=want: greeted(*p, want=w))


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


# TLS on port 443, to a server of TLS


def sessions():
    case("TLS server: the name", lambda: session("tls.test"), legitimate=True)
    case("TLS server: another name", lambda: session(OTHER))
    case("TLS server: no name", lambda: session(None))
    case("TLS server: the name byte by byte", lambda: session("tls.test", 1), legitimate=True)
    case("TLS server: another name byte by byte", lambda: session(OTHER, 1))


def session(name, size=65536):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with connect("tls.test", 443) as stream:
        while True:
            try:
                answer = tls.read(100)
                return f"served {(name or 'none')}".encode() in answer
            except ssl.SSLWantReadError:
                say(stream, *cut(outgoing.read(), size))
                more = stream.recv(65536)
                if not more:
                    return False
                incoming.write(more)
