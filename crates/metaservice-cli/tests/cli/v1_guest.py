"""A guest of version 1, from the protocol page alone: curl, and a websocket by hand."""
import base64, json, os, socket, struct, subprocess, sys, threading

BASE = sys.argv[1]  # http://HOST:PORT/engine/v1

killed = threading.Event()

def curl(method, target, *options, body=b""):
    """Status and body of one request."""
    words = ["curl", "-s", "-X", method, "-w", "\n%{http_code}", *options, BASE + target]
    words += ["--data-binary", "@-"] if method != "GET" else []
    out = subprocess.run(words, input=body, stdout=subprocess.PIPE).stdout
    body, _, status = out.rpartition(b"\n")
    return int(status), body

def expect(answer, status, code=None):
    assert answer[0] == status and (not code or json.loads(answer[1])["code"] == code), (answer, status, code)
    return answer[1]

def exact(sock, count):
    data = sock.recv(count, socket.MSG_WAITALL)
    assert len(data) == count, "the websocket ended"
    return data

def shell(action):
    host, port = BASE.split("/")[2].split(":")
    sock = socket.create_connection((host, int(port)))
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(f"GET /engine/v1/reply?id={action['id']} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
                 f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exact(sock, 1)
    assert head.startswith(b"HTTP/1.1 101 "), head

    def send(payload, opcode=2):
        length = struct.pack(">BH", 0xFE, len(payload)) if len(payload) > 125 else bytes([0x80 | len(payload)])
        sock.sendall(bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload)  # masked with zeroes

    send(b"\0\2" + json.dumps(action["command"]).encode())
    backlog, flying, ended = [], 0, False  # what stdin brought, what of stdout is not acknowledged
    while backlog or not ended:
        opcode, length = exact(sock, 2)
        length = struct.unpack(">H", exact(sock, 2))[0] if length == 126 else length
        message = exact(sock, length)
        if opcode == 0x89:
            send(message, 10)
        elif opcode == 0x82 and message[:2] == b"\0\0":
            backlog.append(message[2:])
            ended = len(message) == 2
        elif opcode == 0x82 and message[:2] == b"\1\1":
            flying -= struct.unpack(">I", message[2:])[0]
        while backlog and flying + len(backlog[0]) <= 65536:  # back on stdout, and acknowledged
            block = backlog.pop(0)
            flying += len(block)
            send(b"\0\1" + block)
            if block:
                send(b"\1\0" + struct.pack(">I", len(block)))
    send(b"\0\2"), send(b"\5\1"), send(b"\3\350", 8)  # stderr ends, exit failed, close
    while sock.recv(65536):  # until the host has closed too
        pass

def serve(action):
    kind, reply = action["type"], "/reply?id=" + action["id"]
    if kind == "get-artifact":
        expect(curl("GET", reply), 405, "MethodNotAllowed")
        found = action["path"] == "/there"
        if killed.is_set() and found:
            # The service has the result, and ends no sooner than it has this artifact.
            expect(curl("PUT", "/failed"), 200)
            expect(curl("PUT", "/success"), 409, "ResourceConflict")
        options = [] if found else ["-H", "X-Taskcluster-Worker-Error: file-not-found"]
        expect(curl("POST", reply, *options, body=b"\0content\xff" if found else b""), 200)
    elif kind == "list-folder":
        typed = ["-H", "Content-Type: application/json"]
        expect(curl("POST", reply, body=b"{}"), 400, "InvalidPayload")
        expect(curl("POST", reply, *typed, body=b"{broken"), 400, "InvalidPayload")
        files = {"files": [action["path"] + "/a", action["path"] + "/b"], "notFound": False}
        expect(curl("POST", "/list-folder?id=" + action["id"], *typed, body=json.dumps(files).encode()), 200)
        expect(curl("POST", reply), 400, "UnknownActionId")  # answered already
    elif kind == "exec-shell":
        expect(curl("GET", reply), 400, "InvalidPayload")
        shell(action)
    elif kind == "kill-process":
        expect(curl("POST", reply), 200)
        expect(curl("POST", "/log", "-H", "Transfer-Encoding: chunked", body=b"killed\n"), 200)
        killed.set()
        expect(curl("PUT", "/failed"), 200)

execute = json.loads(expect(curl("GET", "/execute"), 200))
assert execute == {"env": {"GREETING": "hello"}, "command": ["do", "it"]}, execute
assert expect(curl("GET", "/ping"), 200) == b""
expect(curl("GET", "/nothing"), 404, "NoSuchEndPoint"), expect(curl("PUT", "/poll"), 405, "MethodNotAllowed")
expect(curl("POST", "/reply?id=never"), 400, "UnknownActionId")
expect(curl("POST", "/log", body=b"the log\n"), 200)
while True:
    status, body = curl("GET", "/poll")
    if status != 200:
        break  # the service has ended
    threading.Thread(target=serve, args=(json.loads(body),)).start()
