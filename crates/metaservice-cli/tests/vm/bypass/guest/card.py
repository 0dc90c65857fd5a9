"""The card of the guest, without its kernel: whole frames in both directions."""

import os
import select
import socket
import struct
import subprocess

from probe import TIMEOUT, question

GUEST, ROUTER, PUBLIC, SERVICE = "10.0.2.15", "10.0.2.2", "11.0.0.2", "169.254.169.254"
AGENT = "169.254.1.2/16"
ROUTER_MAC = bytes([2, 0, 169, 254, 169, 254])
BROADCAST = b"\xff" * 6
SYN, RST, ACK = 2, 4, 16
SO_RCVBUFFORCE = 33


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source, to, protocol, payload, options=b"", fragment=0, ident=1):
    length = 20 + len(options)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x40 | length // 4, 0, length + len(payload), ident, fragment, 64, protocol, 0),
        *(socket.inet_aton(source), socket.inet_aton(to)),
    )
    header += options
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return header + payload


def sealed(source, to, protocol, payload, at):
    """The payload with the checksum of a transport at this place."""
    pseudo = socket.inet_aton(source) + socket.inet_aton(to)
    pseudo += struct.pack("!2H", protocol, len(payload))
    total = checksum(pseudo + payload)
    return payload[:at] + struct.pack("!H", total) + payload[at + 2 :]


def tcp(source, to, from_port, port, flags=SYN, sequence=1000, acknowledged=0, payload=b""):
    header = struct.pack(
        "!2H2IBB3H", from_port, port, sequence, acknowledged, 0x50, flags, 65000, 0, 0
    )
    return sealed(source, to, 6, header + payload, 16)


def udp(source, to, from_port, port, payload):
    header = struct.pack("!4H", from_port, port, 8 + len(payload), 0)
    return sealed(source, to, 17, header + payload, 6)


class Card:
    """Frames of the card.

    The kernel has another address meanwhile, so that it answers none of them. By this one, the
    agent reaches its service. Its connections need it to the end.
    """

    def __enter__(self):
        self.link = "eth0"
        for change in [["flush", "dev", self.link], ["add", AGENT, "dev", self.link]]:
            subprocess.run(["ip", "addr", *change], check=True)
        everything = socket.htons(3)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything)
        # More than there is in any case.
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.socket.bind((self.link, 3))
        self.mac = self.socket.getsockname()[4]
        self.port = 20000
        return self

    def __exit__(self, *_):
        self.socket.close()
        for change in [
            ["addr", "add", GUEST + "/24", "dev", self.link],
            ["route", "add", "default", "via", ROUTER],
        ]:
            subprocess.run(["ip", *change], check=True)

    def next_port(self):
        self.port += 1
        return self.port

    def send(self, packet, to=ROUTER_MAC, source=None, kind=0x0800):
        self.socket.send(to + (source or self.mac) + struct.pack("!H", kind) + packet)

    def frames(self):
        """Frames of the other side, as they come."""
        while True:
            ready, _, _ = select.select([self.socket], [], [], TIMEOUT)
            if not ready:
                raise TimeoutError
            frame, (_, _, kind, *_) = self.socket.recvfrom(65536)
            if kind != socket.PACKET_OUTGOING:
                yield frame

    def until_served(self):
        """The frames that come until the resolver answers. It takes one thing after the other."""
        ident, port = struct.unpack("!2H", os.urandom(4))
        query = udp(GUEST, ROUTER, port | 1024, 53, question("allowed.test", ident=ident))
        self.send(ipv4(GUEST, ROUTER, 17, query))
        seen = []
        for frame in self.frames():
            seen.append(frame)
            if frame[12:14] == b"\x08\0" and frame[23] == 17 and frame[42:44] == query[8:10]:
                return seen

    def answer(self, port, to=None):
        """The flags of the segment that comes to a port, and its frame."""
        for frame in self.frames():
            segment = segment_of(frame)
            if segment and segment[:2] == (to or GUEST, port):
                return segment[2], frame


def segment_of(frame):
    """The destination, the port and the flags of a segment to the guest."""
    if frame[12:14] != b"\x08\0" or frame[23] != 6:
        return None
    ports = struct.unpack("!2H", frame[34:38])
    return socket.inet_ntoa(frame[30:34]), ports[1], frame[47]
