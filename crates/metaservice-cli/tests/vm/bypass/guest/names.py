"""Addresses, names and what they resolve to."""

import socket
import struct

from probe import PUBLIC, RESOLVER, TIMEOUT, answered, case, connect, exchanged, hear, question
from probe import resolve, say, served, tried, unnamed, wire

TUNNEL = "a" * 60 + "." + "b" * 60


def all_cases():
    addresses()
    spellings()
    other_resolvers()
    questions()
    rebinding()
    datagrams()


def addresses():
    case("control: an allowed name", lambda: served("allowed.test", 8000), legitimate=True)
    case("raw address of an allowed name", lambda: served(PUBLIC, 8000))
    case("other port of an allowed name", lambda: served("allowed.test", 8001))
    case("other name on the same address", lambda: served("other.test", 8000))
    case("below an allowed name", lambda: served("www.allowed.test", 8000))
    case("address beside that of a name", lambda: beside("allowed.test"), control=False)
    for address in ["198.18.0.0", "198.18.0.1", "198.19.255.254"]:
        case(f"guessed address {address}", lambda a=address: served(a, 8000), control=False)
    for address in [
        "10.0.0.1",
        "10.0.0.2",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.1.1",
        "192.0.0.1",
        "192.88.99.1",
        "11.0.0.1",
        "8.8.8.8",
    ]:
        case(f"address {address}", lambda a=address: served(a, 8000))
    # The gateway itself, and the addresses that other gateways have for the host.
    case("a port of the gateway", lambda: served(RESOLVER, 8000))
    case("address 10.0.2.3 of another gateway", lambda: served("10.0.2.3", 8000))
    case("loopback of the host as host", lambda: served("host", 8000))
    case("loopback of the host as host.internal", lambda: served("host.internal", 8000))
    for name in ["localhost", "ip6-localhost", "a.localhost", "gateway"]:
        case(f"loopback of the host as {name}", lambda n=name: served(n, 8000), control=False)
    case("the name [host]", lambda: unnamed(question("[host]")), control=False)
    for address in ["169.254.170.2", "169.254.169.253", "100.100.100.200", "168.63.129.16"]:
        case(f"metadata at {address}", lambda a=address: served(a, 80))
    # The service of the job answers there, and never the outside.
    for port in [80, 8000]:
        case(
            f"metadata at 169.254.169.254:{port}",
            lambda p=port: served("169.254.169.254", p, audit=False),
            control=False,
        )
    for name in ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"]:
        case(f"metadata as the name {name}", lambda n=name: unnamed(question(n)), control=False)
        case(
            f"metadata as the address {name}",
            lambda n=name: served(socket.inet_ntoa(socket.inet_aton(n)), 80, audit=False),
            control=False,
        )


def beside(name):
    number = struct.unpack("!I", socket.inet_aton(resolve(name)))[0] + 200
    return served(socket.inet_ntoa(struct.pack("!I", number)), 8000)


def spellings():
    """The same name in other letters and with its final dot, and names that look like it."""
    for name in ["ALLOWED.test", "aLLowed.TEST"]:
        case(f"mixed case {name}", lambda n=name: served(n, 8000), legitimate=True)
    case("trailing dot", lambda: served("allowed.test.", 8000), legitimate=True)
    case("punycode of a name that looks alike", lambda: served("xn--llowed-7uf.test", 8000))
    for name in ["allowed\N{FULLWIDTH FULL STOP}test", "\N{CYRILLIC SMALL LETTER A}llowed.test"]:
        case(f"{name!a} in UTF-8", lambda n=name: unnamed(question(n)), control=False)
    for text, labels in [
        ("a dot in a label", [b"allowed.test"]),
        ("a zero byte in a label", [b"allowed", b"test\0"]),
        ("a space in a label", [b"allowed ", b"test"]),
        ("a wildcard as a name", [b"*", b"test"]),
        ("the root", []),
    ]:
        case(text, lambda n=wire(labels): unnamed(question(n)), control=False)


def other_resolvers():
    for to in [RESOLVER, PUBLIC, "8.8.8.8", "169.254.1.1"]:
        for stream in [False, True]:
            how = "TCP" if stream else "UDP"
            case(
                f"question for another name to {to} by {how}",
                lambda t=to, s=stream: answered(
                    question("other.test"), "other.test", to=t, stream=s
                ),
            )
    case("DNS over TLS", lambda: served("8.8.8.8", 853))
    case("DNS over HTTPS by address", lambda: tls_answers("8.8.8.8"))
    case("DNS over HTTPS by name", lambda: tls_answers("other.test"))
    case("multicast DNS to a resolver", lambda: exchanged("8.8.8.8", 5353, b"mdns"))
    # The length of the names is what would leave.
    case("tunnel below a name", lambda: below("other.test"))
    case("tunnel below an allowed name", lambda: below("allowed.test"))
    case("tunnel in TXT", lambda: below("allowed.test", 16), control=False)
    case("tunnel in NULL", lambda: below("allowed.test", 10), control=False)


def tls_answers(to):
    with connect(to, 443) as stream:
        say(stream, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
        return bool(hear(stream))


def below(parent, kind=1):
    name = f"{TUNNEL}.{parent}"
    # The names below the one that is not allowed have no address outside.
    if parent == "other.test":
        return answered(question(name, kind), name)
    return answered(question(name, kind), name) and served(name, 8000)


def questions():
    allowed = wire("allowed.test")
    case("AAAA", lambda: answered(question(allowed, 28)), control=False)
    for name, kind in [("TXT", 16), ("SVCB", 64), ("HTTPS", 65), ("ANY", 255), ("AXFR", 252)]:
        case(f"{name} of an allowed name", lambda k=kind: answered(question(allowed, k)), False)
    case("A of an allowed name", lambda: answered(question(allowed)), legitimate=True)
    for name, query in [
        ("name of 320 bytes", question(wire(".".join(["a" * 63] * 5)))),
        ("name of 255 labels", question(wire(".".join(["a"] * 200)))),
        ("compression loop", question(b"\xc0\x0c")),
        ("compression loop of two", question(b"\xc0\x0e\xc0\x0c")),
        ("pointer forwards", question(b"\xc0\x20", tail=allowed)),
        ("pointer to the header", question(b"\x05other\xc0\x00")),
        ("label longer than the message", question(b"\x3fallowed")),
        (
            "two questions",
            question(allowed, counts=(2, 0, 0, 0), tail=wire("other.test") + b"\0\1\0\1"),
        ),
        ("no question", question(b"", counts=(0, 0, 0, 0))),
        ("question with an answer", question(allowed, counts=(1, 1, 0, 0))),
        ("class CHAOS", question(allowed, klass=3)),
        ("an update", question(allowed, flags=0x2900)),
        ("a notification", question(allowed, flags=0x2100)),
    ]:
        case(f"DNS: {name}", lambda q=query: answered(q), control=False)
    case("DNS: an answer in place of a question", unanswered, control=False)


def unanswered():
    """The next question is answered, and nothing before it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.connect((RESOLVER, 53))
        end.settimeout(TIMEOUT)
        end.send(question("allowed.test", ident=1, flags=0x8180))
        end.send(question("allowed.test", ident=2))
        return end.recv(2000)[:2] != b"\0\2"


def rebinding():
    """Allowed names whose owner says that they are somewhere else."""
    case("rebinding to the host's own address", lambda: served("own.test", 8000))
    case("rebinding to a private address", lambda: served("private.test", 8000))
    case("rebinding to a link-local address", lambda: served("link.test", 8000))
    case("rebinding to the metadata address", lambda: served("metadata.test", 8000))
    case("rebinding to the metadata of a vendor", lambda: served("vendor.test", 8000))
    case("rebinding to a provider's network", lambda: served("provider.test", 8000))
    case("rebinding to the addresses of names", lambda: served("bench.test", 8000))
    case("rebinding to a mapped address", lambda: served("mapped.test", 8000))
    case("rebinding through NAT64", lambda: served("nat64.test", 8000))
    case("rebinding through 6to4", lambda: served("sixtofour.test", 8000))
    case("rebinding to a unique local address", lambda: served("unique.test", 8000))
    for name in ["loopback.test", "zero.test", "loopback6.test"]:
        # No policy opens the loopback interface by an address.
        case(f"rebinding to {name}", lambda n=name: served(n, 8000), control=False)
    case("CNAME chain to a private address", lambda: served("chain.test", 8000))
    case("one private address of two", lambda: served("both.test", 8000, "10.", False))
    case("rebinding after the first answer", flipped)


def flipped():
    served("flip.test", 8000)
    return served("flip.test", 8000, at="10.")


def datagrams():
    initial = b"\xc0\0\0\0\1" + bytes(1195)
    case("QUIC to a raw address", lambda: exchanged(PUBLIC, 443, initial))
    case("QUIC to an allowed name", lambda: exchanged("allowed.test", 443, initial))
    case("UDP to a port of an allowed name", lambda: exchanged("allowed.test", 8000, b"udp name"))
    case("UDP to NTP", lambda: exchanged(PUBLIC, 123, b"ntp"))
    case("UDP to a private address", lambda: exchanged("10.0.0.2", 4000, b"udp private"))
    case("UDP to the gateway", lambda: exchanged(RESOLVER, 4000, b"udp gateway"), control=False)
    case("control: allowed UDP", lambda: exchanged(PUBLIC, 4000, b"allowed"), legitimate=True)
    # The host fragments it. The guest needs not know the path.
    large = lambda: exchanged(PUBLIC, 4000, b"large" + bytes(9000))
    case("control: a datagram larger than the path", large, legitimate=True)
    case("ping to a raw address", lambda: ping("11.1.0.3"))
    case("ping to a private address", lambda: ping("10.0.0.2"))


def ping(to):
    tried("icmp", to)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as end:
        end.settimeout(TIMEOUT)
        request = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"payload."
        total = sum(struct.unpack("!8H", request))
        total = (total & 0xFFFF) + (total >> 16)
        request = request[:2] + struct.pack("!H", ~total & 0xFFFF) + request[4:]
        end.sendto(request, (to, 0))
        while True:
            packet = end.recv(2000)[20:]
            if packet[0] in (0, 3):
                return packet[0] == 0
