"""Each table of the gateway is filled. What is too much is refused, and the gateway still serves.

With everything allowed, the limits are higher, and nothing of the same is refused.
"""

import errno
import random
import select
import socket
import struct

from card import ACK, GUEST, PUBLIC, RST, SERVICE, SO_RCVBUFFORCE, SYN, Card, ipv4, segment_of
from card import tcp
from probe import FAILED, OPEN, RESOLVER, TIMEOUT, ask, attempts, case, connect, question, resolve
from probe import served

SLOW = "11.0.9.9"


def all_cases():
    for name, act, control in [
        ("connections to one name", of_one_name, True),
        ("connections", connections, True),
        ("connections that are being dialled", dialled, True),
        ("names", names, True),
        ("questions", questions, True),
        ("connections to the resolver", resolver_connections, False),
        ("associations of UDP", associations, True),
        ("pings", pings, False),
        ("names that are denied", denied_names, False),
        ("addresses that are denied", denied_addresses, False),
    ]:
        case(f"too many {name}", lambda a=act: exhausted(a), control=control)
    with Card() as card:
        for name, act, control in [
            ("handshakes", handshakes, True),
            ("handshakes with the service", service_handshakes, False),
            ("frames", noise, False),
        ]:
            case(f"too many {name}", lambda a=act: exhausted(a, card), control=control)
    case("too much: the guest is served after it", serves, legitimate=True)


def exhausted(act, *args):
    """Fills a table. Returns whether everything has passed."""
    passed = act(*args)
    attempts.clear()
    if not args:
        assert serves(), "the gateway does not serve any more"
        attempts.clear()
    return passed


def serves():
    return served("allowed.test", 8000)


def open_many(count, to):
    """Opens connections. Returns those that are there, and how many were refused."""
    open_ones, refused = [], 0
    for number in range(count):
        try:
            open_ones.append(connect(to(number), 8000))
        except ConnectionRefusedError:
            refused += 1
    return open_ones, refused


def close_all(streams):
    """Closes connections, and waits until the outside has closed them, too."""
    for stream in streams:
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(1000):
            pass
        stream.close()


def of_one_name():
    open_ones, refused = open_many(40, lambda _: "allowed.test")
    # Another name has its own places.
    others, none = open_many(4, lambda _: "reload.test")
    close_all(open_ones + others)
    return not refused + none or none > 0


def connections():
    open_ones, refused = open_many(120, lambda number: f"a{number % 12}.many.test")
    close_all(open_ones)
    return not refused


def dialled():
    """Connections to a peer that never answers, more than there may be."""
    waiting, refused = [], 0
    poll = select.poll()
    for _ in range(120):
        stream = socket.socket()
        stream.setblocking(False)
        code = stream.connect_ex((SLOW, 8000))
        if code == errno.EINPROGRESS:
            waiting.append(stream)
            poll.register(stream, select.POLLOUT)
        refused += code == errno.ECONNREFUSED
    # An answer from the resolver comes after the refusals before it.
    resolve("allowed.test")
    refused += sum(1 for _, _ in poll.poll(0))
    if not OPEN:
        # The last one has ended when the host gives up.
        for stream in waiting:
            select.select([], [stream], [])
    for stream in waiting:
        stream.close()
    return not refused


def names():
    """The first of many names has lost its address, which leads nowhere then."""
    first = resolve("first.many.test")
    for number in range(100):
        resolve(f"n{number}.many.test")
    with socket.socket() as stream:
        stream.settimeout(TIMEOUT)
        return stream.connect_ex((first, 8000)) == 0


def questions():
    """So many that not each is answered."""
    query = question("allowed.test")
    failed = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        end.connect((RESOLVER, 53))
        end.settimeout(TIMEOUT)
        # The queue of the card has room for them.
        for _ in range(900):
            end.send(query)
        for _ in range(900):
            failed += end.recv(1000)[3] & 15 == FAILED
    return not failed


def resolver_connections():
    streams, refused = [], 0
    for _ in range(50):
        stream = socket.socket()
        streams.append(stream)
        refused += stream.connect_ex((RESOLVER, 53)) == errno.ECONNREFUSED
    for stream in streams:
        stream.close()
    return not refused


def associations():
    ends, refused = [], 0
    for _ in range(40):
        end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        end.settimeout(TIMEOUT)
        end.connect((PUBLIC, 4000))
        ends.append(end)
        end.send(b"association")
        try:
            end.recv(100)
        except OSError as error:
            refused += error.errno in (errno.EACCES, errno.EHOSTUNREACH, errno.ECONNREFUSED)
    # The first one still works.
    ends[0].send(b"association")
    assert ends[0].recv(100).startswith(b"served")
    for end in ends:
        end.close()
    return not refused


def pings():
    request = bytes([8, 0]) + b"\xf7\xff" + bytes(4)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as end:
        for _ in range(300):
            end.sendto(request, (SLOW, 0))
    return False


def denied_names():
    return any(ask(question(f"d{number}.denied.test"))[0] == 0 for number in range(300))


def denied_addresses():
    answers = []
    for number in range(300):
        with socket.socket() as stream:
            stream.settimeout(TIMEOUT)
            answers.append(stream.connect_ex((f"12.0.{number // 200}.{number % 200 + 1}", 8000)))
    return errno.ECONNREFUSED not in answers or 0 in answers


def handshakes(card, to=PUBLIC, port=9098, count=400):
    """SYNs whose answer the guest never confirms. Returns whether each was answered."""
    own = [card.next_port() for _ in range(count)]
    for number in own:
        card.send(ipv4(GUEST, to, 6, tcp(GUEST, to, number, port)))
    answered, refused = {}, set()
    for frame in card.frames():
        segment = segment_of(frame)
        if segment and segment[1] in own:
            flags, number = segment[2], struct.unpack("!I", frame[38:42])[0]
            answered.update({segment[1]: number} if flags & SYN else {})
            refused.update({segment[1]} if flags & RST else set())
            if len(answered.keys() | refused) == count:
                break
    # Their places are free again.
    for number, sequence in answered.items():
        end = tcp(GUEST, to, number, port, RST | ACK, 1001, sequence + 1)
        card.send(ipv4(GUEST, to, 6, end))
    card.until_served()
    return not refused


def service_handshakes(card):
    """The service has places of its own, and displaces the oldest."""
    handshakes(card, SERVICE, 80, 300)
    return not answers(card)


def noise(card):
    """Frames of random bytes, with and without good headers."""
    draw = random.Random(17)
    for _ in range(3000):
        rest = draw.randbytes(draw.randrange(200))
        kind = draw.choice([0x0800, 0x0806, 0x86DD, draw.randrange(65536)])
        if draw.random() < 0.5:
            protocol = draw.choice([1, 6, 17, draw.randrange(256)])
            to = socket.inet_ntoa(draw.randbytes(4))
            card.send(ipv4(GUEST, to, protocol, rest), kind=0x0800)
        else:
            card.send(rest, kind=kind)
    return not answers(card)


def answers(card):
    """Whether the resolver still answers."""
    return bool(card.until_served())
