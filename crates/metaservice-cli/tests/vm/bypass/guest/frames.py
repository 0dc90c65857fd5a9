"""Frames that no kernel would send.

Each case has a port of its own, to which the policy allows connections. So only its form is why it
is refused, and the outside must not see the port. With everything allowed, the same code sends the
packet in its right form.
"""

import itertools
import socket
import struct

from card import ACK, BROADCAST, GUEST, PUBLIC, ROUTER, ROUTER_MAC, RST, SERVICE, SYN, Card
from card import ipv4, segment_of, tcp, udp
from probe import OPEN, case, tried

STRANGER = bytes([0x52, 0x54, 0, 0x99, 0x99, 0x99])
ports = itertools.count(9000)


def all_cases():
    with Card() as card:
        case("control: a SYN", lambda: opens(card, wait=True), legitimate=True)
        case("control: a datagram", lambda: datagram(card, wait=True), legitimate=True)
        options(card)
        sources(card)
        fragments(card)
        links(card)
        claims(card)
        others(card)


def opens(card, source=GUEST, to=PUBLIC, port=None, audit=True, frame=None, wait=OPEN, **how):
    """Sends a SYN, and returns whether it is answered."""
    port = port or next(ports)
    own = card.next_port()
    if audit:
        tried("tcp", to, port)
    if OPEN:
        source, to, frame, how = GUEST, PUBLIC, None, {}
    link = {name: how.pop(name) for name in ["options", "fragment"] if name in how}
    packet = ipv4(source, to, 6, tcp(source, to, own, port, **how), **link)
    card.send(*frame(packet)) if frame else card.send(packet)
    if wait:
        return accepted(card, own, port)
    # What is refused has no answer. What passes is seen by the outside, too.
    segments = filter(None, map(segment_of, card.until_served()))
    return any(segment[1] == own and segment[2] & SYN for segment in segments)


def accepted(card, own, port):
    flags, frame = card.answer(own)
    if flags & SYN:
        number = struct.unpack("!I", frame[38:42])[0]
        end = tcp(GUEST, PUBLIC, own, port, RST, 1001, number + 1)
        card.send(ipv4(GUEST, PUBLIC, 6, end))
    return bool(flags & SYN)


def datagram(card, source=GUEST, to=PUBLIC, audit=True, pieces=None, wait=OPEN, **how):
    """Sends a datagram, and returns whether it is answered."""
    port, own = next(ports), card.next_port()
    if audit:
        tried("udp", to, port)
    if OPEN:
        source, to, pieces, how = GUEST, PUBLIC, None, {}
    content = udp(source, to, own, port, b"datagram")
    for packet in pieces(content) if pieces else [ipv4(source, to, 17, content, **how)]:
        card.send(packet)
    seen = card.frames() if wait else card.until_served()
    return any(frame[23] == 17 and frame[36:38] == struct.pack("!H", own) for frame in seen)


def options(card):
    address = socket.inet_aton(PUBLIC)
    for name, content in [
        ("loose source route", b"\x83\x07\x04" + address + b"\1"),
        ("strict source route", b"\x89\x07\x04" + address + b"\1"),
        ("record of the route", b"\7\7\4" + bytes(4) + b"\1"),
        ("timestamps", b"\x44\x08\5\0" + bytes(4)),
        ("router alert", b"\x94\4\0\0"),
        ("no operation", b"\1\1\1\1"),
    ]:
        case(f"SYN with {name}", lambda c=content: refused_at_once(card, c))
        case(f"datagram with {name}", lambda c=content: datagram(card, options=c))
    route = b"\x83\x07\x04" + socket.inet_aton("8.8.8.8") + b"\1"
    case("source route through the service", lambda: opens(card, to=SERVICE, options=route))


def refused_at_once(card, content):
    """A client that sends this must not wait."""
    own, port = card.next_port(), next(ports)
    tried("tcp", PUBLIC, port)
    syn = tcp(GUEST, PUBLIC, own, port)
    card.send(ipv4(GUEST, PUBLIC, 6, syn, options=b"" if OPEN else content))
    return accepted(card, own, port)


def sources(card):
    for source in ["10.0.2.16", ROUTER, SERVICE, "169.254.1.3", "11.0.0.1", PUBLIC, "127.0.0.1"]:
        case(f"SYN from {source}", lambda s=source: opens(card, source=s))
        case(f"datagram from {source}", lambda s=source: datagram(card, source=s))
    for source in ["0.0.0.0", "255.255.255.255", "224.0.0.1"]:
        case(f"SYN from {source}", lambda s=source: opens(card, source=s))
    frame = lambda packet: (packet, ROUTER_MAC, STRANGER)
    # One guest is on the link, with any card that it likes: the policy holds for each.
    case("SYN from another card", lambda: opens(card, port=8000, frame=frame))
    frame = lambda packet: (packet, ROUTER_MAC, ROUTER_MAC)
    case("SYN from the card of the gateway", lambda: opens(card, frame=frame, audit=False))


def fragments(card):
    def in_pieces(content, cut, overlap=0):
        first = ipv4(GUEST, PUBLIC, 17, content[:cut], fragment=0x2000)
        return [
            first,
            ipv4(GUEST, PUBLIC, 17, content[cut - overlap :], fragment=(cut - overlap) // 8),
        ]

    case("datagram in fragments", lambda: datagram(card, pieces=lambda c: in_pieces(c, 8)))
    case("fragments in reverse", lambda: datagram(card, pieces=lambda c: in_pieces(c, 8)[::-1]))
    overlapping = lambda c: in_pieces(c, 16, 8)
    case("fragments that overlap", lambda: datagram(card, pieces=overlapping))
    case("the first fragment alone", lambda: datagram(card, fragment=0x2000))
    late = lambda: datagram(card, fragment=4, audit=False)
    case("a fragment without its beginning", late)
    case("SYN as the first of fragments", lambda: opens(card, fragment=0x2000))


def links(card):
    for name, mac in [
        ("slirp", bytes([0x52, 0x55, 10, 0, 2, 2])),
        ("a stranger", STRANGER),
        ("a multicast group", bytes([1, 0, 0x5E, 0, 0, 1])),
    ]:
        case(
            f"SYN to the card of {name}",
            lambda m=mac: opens(card, frame=lambda p: (p, m), audit=False),
        )
    tag = struct.pack("!HH", 7, 0x0800)
    for name, kind, before in [
        ("VLAN", 0x8100, tag),
        ("VLAN in VLAN", 0x88A8, struct.pack("!HH", 7, 0x8100) + tag),
        ("MPLS", 0x8847, struct.pack("!I", 0x7140)),
        ("PPPoE", 0x8864, b"\x11\0\0\1\0\x2a\0\x21"),
        ("a length in place of a type", 46, b"\xaa\xaa\3\0\0\0\x08\0"),
    ]:
        frame = lambda p, k=kind, b=before: (b + p, ROUTER_MAC, None, k)
        case(f"SYN in {name}", lambda f=frame: opens(card, frame=f, audit=False))
    inner = lambda p: ipv4(GUEST, PUBLIC, 4, p)
    case("SYN in IPv4", lambda: opens(card, frame=lambda p: (inner(p),), audit=False))
    gre = lambda p: (ipv4(GUEST, PUBLIC, 47, b"\0\0\x08\0" + p),)
    case("SYN in GRE", lambda: opens(card, frame=gre, audit=False))
    esp = lambda p: (ipv4(GUEST, PUBLIC, 50, p),)
    case("SYN in ESP", lambda: opens(card, frame=esp, audit=False))
    for name, to, mac in [
        ("a public address", "2606:4700::1111", ROUTER_MAC),
        ("a mapped address", "::ffff:11.0.0.2", ROUTER_MAC),
        ("a link-local address", "fe80::1", ROUTER_MAC),
        ("all nodes", "ff02::1", bytes([0x33, 0x33, 0, 0, 0, 1])),
    ]:
        frame = lambda p, t=to, m=mac: (ipv6(t, p[20:]), m, None, 0x86DD)
        case(f"IPv6 to {name}", lambda f=frame: opens(card, frame=f, audit=False))
    six = lambda p: (ipv4(GUEST, PUBLIC, 41, ipv6("2606:4700::1111", p[20:])),)
    case("IPv6 in IPv4", lambda: opens(card, frame=six, audit=False))


def ipv6(to, payload):
    header = struct.pack("!IHBB", 0x60000000, len(payload), 6, 64)
    return header + socket.inet_pton(10, "fe80::2") + socket.inet_pton(10, to) + payload


def claims(card):
    """The guest says that it, or somebody else, has an address."""

    def arp(operation, mac, address, target):
        packet = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac
        packet += socket.inet_aton(address) + bytes(6) + socket.inet_aton(target)
        card.send(packet, BROADCAST, mac, 0x0806)

    def claim(mac, address):
        for operation in [1, 2]:
            arp(operation, mac, address, address)
            arp(operation, mac, address, ROUTER)

    def neighbour(address):
        if not OPEN:
            claim(card.mac, address)
        return opens(card, source=address)

    def stolen(address):
        """Whether the stranger gets what is for the guest."""
        claim(STRANGER, address)
        assert opens(card, port=9099, audit=False, wait=True), "the guest has no answer any more"
        return any(frame[:6] == STRANGER for frame in card.until_served())

    case("ARP: the address of a neighbour", lambda: neighbour("10.0.2.16"))
    case("ARP: a public address", lambda: neighbour(PUBLIC))
    for name, address in [("gateway", ROUTER), ("service", SERVICE), ("guest", GUEST)]:
        case(f"ARP: the address of the {name}", lambda a=address: stolen(a), control=False)

    def leased():
        """Another address by DHCP, for a card that asks for it."""
        wanted = socket.inet_aton(GUEST if OPEN else "10.0.2.99")
        body = struct.pack("!4BIHH", 1, 1, 6, 0, 0x1234, 0, 0x8000) + bytes(16)
        body += card.mac + bytes(10 + 192) + b"\x63\x82\x53\x63"
        body += b"\x35\1\3" + b"\x32\4" + wanted + b"\xff"
        content = udp("0.0.0.0", "255.255.255.255", 68, 67, body)
        card.send(ipv4("0.0.0.0", "255.255.255.255", 17, content), BROADCAST)
        replies = [seen for seen in card.until_served() if seen[36:38] == b"\0\x44"]
        return any(b"\x35\1\5" in seen[282:] and seen[58:62] == wanted for seen in replies)

    case("DHCP: an address of its own choice", leased)


def others(card):
    """Destinations that are no single host, and segments without a connection."""
    for to in ["224.0.0.1", "255.255.255.255", "10.0.2.255", "10.0.2.0", "240.0.0.1", "127.0.0.1"]:
        case(f"SYN to {to}", lambda t=to: opens(card, to=t))
    case("SYN to 0.0.0.0", lambda: opens(card, to="0.0.0.0"))
    case(
        "SYN to the loopback of the host at port 8000",
        lambda: opens(card, to="127.0.0.1", port=8000),
    )
    case("SYN with data", lambda: opens(card, payload=b"data"))
    case("data without a connection", lambda: opens(card, flags=ACK, payload=b"data", audit=False))
    case("SYN and FIN", lambda: opens(card, flags=SYN | 1, audit=False))
    case("SYN and RST", lambda: opens(card, flags=SYN | RST, audit=False))
    case("a reset", lambda: opens(card, flags=RST, audit=False))
