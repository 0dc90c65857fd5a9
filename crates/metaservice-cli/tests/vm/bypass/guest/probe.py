"""What the cases of the guest have in common: their registry, connections, questions.

A case returns whether it has passed, and says what it tried. Each is one line of stdout:

    CASE {"name": ..., "result": "passed", "detail": ..., "attempts": [[protocol, to, port], ...]}

The results: passed, refused, hung (a client would wait), skipped (nothing can open it), broken.
"""

import json
import random
import socket
import struct
import sys
import traceback

RESOLVER = "10.0.2.2"
PUBLIC = "11.0.0.2"
# With everything allowed, each case must pass: this shows that the probe works.
OPEN = sys.argv[1] == "open"
# Only a test that is broken waits so long.
TIMEOUT = 20
# The code of an answer to a question that is one too many.
FAILED = 2
MAX_QUESTIONS = 5000

attempts = []


class Refused(Exception):
    """The policy has refused it, as far as the guest can tell."""


def case(name, act, control=True, legitimate=False):
    """Runs a case. `control`: it passes with everything allowed. `legitimate`: it always passes."""
    attempts.clear()
    detail = ""
    if OPEN and not control:
        result = "skipped"
    else:
        try:
            result = "passed" if act() else "refused"
        except TimeoutError:
            result = "hung"
        except (OSError, Refused) as error:
            result, detail = "refused", f"{type(error).__name__}: {error}"
        except Exception:
            result, detail = "broken", traceback.format_exc()
    report = {"name": name, "result": result, "detail": detail, "legitimate": legitimate}
    print("CASE", json.dumps({**report, "attempts": attempts}), flush=True)


def tried(protocol, to, port=None):
    attempts.append([protocol, to, port])


# Names


def wire(name):
    labels = name.encode("utf-8").split(b".") if isinstance(name, str) else name
    return b"".join(bytes([len(label)]) + label for label in labels if label) + b"\0"


def question(name, kind=1, ident=None, flags=0x100, counts=(1, 0, 0, 0), tail=b"", klass=1):
    ident = random.randrange(65536) if ident is None else ident
    labels = name if isinstance(name, bytes) else wire(name)
    header = struct.pack("!6H", ident, flags, *counts)
    return header + labels + struct.pack("!2H", kind, klass) + tail


def ask(query, to=RESOLVER, stream=False):
    """The code, the number of records and the bytes of the answer."""
    # The resolver limits questions in time. A client asks again.
    for _ in range(MAX_QUESTIONS):
        answer = ask_once(query, to, stream)
        code = answer[3] & 15
        if code != FAILED:
            break
    return code, struct.unpack("!H", answer[6:8])[0], answer


def ask_once(query, to, stream):
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as asker:
        asker.settimeout(TIMEOUT)
        asker.connect((to, 53))
        asker.sendall(struct.pack("!H", len(query)) + query if stream else query)
        answer = asker.recv(4096)[2 if stream else 0 :]
    if len(answer) < 12:
        raise Refused("no answer")
    return answer


def answered(query, name=None, **how):
    """Whether an answer has a record."""
    if name:
        tried("dns", name)
    code, records, _ = ask(query, **how)
    return code == 0 and records > 0


def unnamed(query):
    """Whether a question for a name that no rule can have is answered."""
    tried("dns", None)
    return answered(query)


def resolve(name):
    code, records, answer = ask(question(name))
    if code or not records:
        tried("dns", name.lower().rstrip("."))
        raise Refused(f"the name has code {code} and {records} records")
    return socket.inet_ntoa(answer[-4:])


# Connections


def connect(to, port, audit=True):
    """Connects to an address, or to a name. `audit`: a denial of it is recorded."""
    address = to if to[0].isdigit() else resolve(to)
    if audit:
        tried("tcp", to.lower().rstrip("."), port)
    stream = socket.socket()
    stream.settimeout(TIMEOUT)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        stream.connect((address, port))
    except BaseException:
        stream.close()
        raise
    return stream


def say(stream, *pieces):
    """Sends each piece in a packet of its own."""
    for piece in pieces:
        stream.sendall(piece)


def hear(stream, end=b"\n"):
    """What comes until a text, or until the end."""
    heard = b""
    try:
        while end not in heard:
            more = stream.recv(65536)
            if not more:
                break
            heard += more
    except ConnectionResetError:
        pass
    return heard


def get(host, path="/"):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def served(to, port, at=None, audit=True):
    """Whether a server of the outside answers, at an address that begins so."""
    with connect(to, port, audit) as stream:
        say(stream, b"GET / HTTP/1.1\r\nHost: probe.test\r\nConnection: close\r\n\r\n")
        # The service of the job ends the connection without this.
        answer = hear(stream, f" {port}\n".encode())
    return b"served probe.test" in answer and (at is None or b"at " + at.encode() in answer)


def exchanged(to, port, payload):
    """Whether a datagram has an answer."""
    address = to if to[0].isdigit() else resolve(to)
    tried("udp", to, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(TIMEOUT)
        end.connect((address, port))
        end.send(payload)
        return end.recv(2000).startswith(b"served")
