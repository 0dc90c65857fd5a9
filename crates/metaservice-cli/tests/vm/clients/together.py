"""In the guest: many connections at once. The server answers when each of them has asked.

Usage: together.py CONNECTIONS
"""
import resource
import socket
import sys

COUNT = int(sys.argv[1])
REQUEST = b"GET /together HTTP/1.1\r\nHost: www.test\r\n\r\n"

resource.setrlimit(resource.RLIMIT_NOFILE, (COUNT + 100, COUNT + 100))
connections = [socket.create_connection(("www.test", 80)) for _ in range(COUNT)]
for _ in range(2):
    for connection in connections:
        connection.sendall(REQUEST)
    answers = [connection.recv(4096) for connection in connections]
    print(sum(answer.endswith(b"all") for answer in answers))
