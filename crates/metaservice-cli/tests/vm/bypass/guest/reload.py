"""The policy changes in the middle of connections: each is cut. The test changes it on a line."""

import errno
import select
import socket
import sys

from probe import OPEN, TIMEOUT, case, connect, hear, resolve, say, tried


def all_cases():
    stream = connect("reload.test", 8000)
    say(stream, b"ping\n")
    assert hear(stream) == b"pong\n"
    address = resolve("reload.test")
    slow = socket.socket()
    slow.setblocking(False)
    slow.connect_ex((resolve("slow.test"), 8000))
    # The host dials when it has seen all that came before.
    resolve("reload.test")
    print("RELOAD", flush=True)
    sys.stdin.readline()

    def held():
        tried("tcp", "reload.test", 8000)
        say(stream, b"ping\n")
        return hear(stream) == b"pong\n"

    def dialled():
        tried("tcp", "slow.test", 8000)
        if OPEN:
            return not select.select([], [slow], [], 0)[1]
        select.select([], [slow], [])
        return slow.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0

    def again():
        tried("tcp", "reload.test", 8000)
        with socket.socket() as new:
            new.settimeout(TIMEOUT)
            return new.connect_ex((address, 8000)) != errno.ECONNREFUSED

    case("policy: a connection that is open", held)
    case("policy: a connection that is being dialled", dialled)
    case("policy: the address that a name had", again)
