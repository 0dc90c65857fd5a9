"""Servers of HTTP and HTTPS for the test of real clients. The site of a name is a directory.

Usage: server.py DIRECTORY CONNECTIONS
"""
import hashlib
import http.server
import os
import random
import ssl
import subprocess
import sys
import threading

DIRECTORY, CONNECTIONS = sys.argv[1], int(sys.argv[2])
TOGETHER = threading.Barrier(CONNECTIONS)
MEBIBYTE = random.Random(1).randbytes((1 << 20) - 8)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The head and the body of a small answer are one segment.
    wbufsize = -1

    def log_message(self, *_):
        pass

    def answer(self, status, content, kind="application/octet-stream"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle_expect_100(self):
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def do_GET(self):
        name, path = self.headers["Host"].split(":")[0], self.path.split("?")[0]
        if name == "git.test":
            self.git(b"")
        elif path.startswith("/big/"):
            self.big(int(path[len("/big/"):]))
        elif path == "/together":
            # Each connection is open now, and has asked.
            TOGETHER.wait()
            self.answer(200, b"all")
        else:
            self.file(f"{DIRECTORY}/site/{name}{path}")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Host"].split(":")[0] == "git.test":
            self.git(body)
        else:
            self.answer(200, body)

    def do_PUT(self):
        """Prints the digest of what a client sends."""
        digest = hashlib.sha256()
        for part in self.parts():
            digest.update(part)
        say(f"received {digest.hexdigest()}")
        self.answer(200, digest.hexdigest().encode())

    def parts(self):
        if self.headers["Transfer-Encoding"] == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers["Content-Length"])
        while left:
            part = self.rfile.read(min(left, 1 << 20))
            left -= len(part)
            yield part

    def big(self, mebibytes):
        """Prints the digest of what it sends. No two mebibytes are the same."""
        digest = hashlib.sha256()
        self.send_response(200)
        self.send_header("Content-Length", str(mebibytes << 20))
        self.end_headers()
        for number in range(mebibytes):
            part = number.to_bytes(8, "big") + MEBIBYTE
            digest.update(part)
            self.wfile.write(part)
        self.wfile.flush()
        say(f"sent {digest.hexdigest()}")

    def file(self, path):
        if os.path.isdir(path):
            path += "/index.html"
        if not os.path.isfile(path):
            return self.answer(404, b"")
        with open(path, "rb") as file:
            content = file.read()
        # A document about a package of npm has a type of its own.
        kinds = {"html": "application/json" if "/npm/" in path else "text/html"}
        self.answer(200, content, kinds.get(path.rsplit(".")[-1], "application/octet-stream"))

    def git(self, body):
        """Smart HTTP, by the program of git."""
        path, _, query = self.path.partition("?")
        variables = {
            **os.environ, "REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)), "REMOTE_ADDR": "127.0.0.1",
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_PROJECT_ROOT": DIRECTORY + "/repositories", "GIT_HTTP_EXPORT_ALL": "1",
        }
        answer = subprocess.run(["git", "http-backend"], input=body, env=variables, check=True,
                                stdout=subprocess.PIPE).stdout
        head, _, content = answer.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.get("Status", "200").split()[0])
        self.answer(status, content, fields.get("Content-Type", "text/plain"))


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 2048


class SecureServer(Server):
    def finish_request(self, request, client_address):
        try:
            with CONTEXT.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except (ssl.SSLError, ConnectionError):
            pass  # A client that goes without a word.


def say(line):
    print(line, flush=True)


CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CONTEXT.load_cert_chain(DIRECTORY + "/server.pem", DIRECTORY + "/server.key")
SERVERS = [Server(("11.0.0.2", 80), Handler), SecureServer(("11.0.0.2", 443), Handler)]
for server in SERVERS:
    threading.Thread(target=server.serve_forever).start()
say("ready")
