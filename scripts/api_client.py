"""Runs the whole life of a job with a client that openapi-python-client has made.

Arguments: the socket of `metaservice api`, and the name of a job whose command runs
`trap 'echo hup' HUP` and continues.
"""

import io
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
from metaservice_client import Client
from metaservice_client.api.files import entries, read, stats, write
from metaservice_client.api.job import job, kill, log, signal, wait
from metaservice_client.api.jobs import jobs
from metaservice_client.api.run import run
from metaservice_client.models import (
    JobState,
    Killed,
    ReadForm,
    RunRequest,
    WaitFor,
    WriteForm,
)
from metaservice_client.types import File

socket, name = sys.argv[1:]
sent = threading.Event()


class Transport(httpx.HTTPTransport):
    """Over a unix socket. Notes when a request was sent."""

    def handle_request(self, request):
        def trace(event, _):
            if event == "http11.send_request_body.complete":
                sent.set()

        request.extensions["trace"] = trace
        return super().handle_request(request)


def connect(base):
    # Each request has a connection of its own: the API ends some of them.
    transport = Transport(uds=socket, limits=httpx.Limits(max_keepalive_connections=0))
    return Client(
        base_url=f"http://localhost{base}",
        timeout=httpx.Timeout(120),
        raise_on_unexpected_status=True,
        httpx_args={"transport": transport},
    )


def step(what, right):
    print(f"{what}: {'ok' if right else 'WRONG'}")
    if not right:
        sys.exit(1)


user = connect("/v1")
step("jobs", name in [one.name for one in jobs.sync(client=user)])

client = connect(f"/v1/jobs/{name}")
step("wait for running", wait.sync(client=client, for_=WaitFor.RUNNING).state == JobState.RUNNING)
step("job", job.sync(client=client).name == name)

result = run.sync(client=client, body=RunRequest(command=["sh", "-c", "cat; echo no >&2; exit 3"], stdin="in"))
step("run", (result.stdout, result.stderr, result.status) == ("in", "no\n", 3))
# The generated function reads only the other answer of this operation.
body = {"command": ["sh", "-c", "echo one; exit 4"]}
with client.get_httpx_client().stream("POST", "/run", params={"stream": True}, json=body) as answer:
    lines = [json.loads(line) for line in answer.iter_lines()]
step("run, as lines", lines[0] == {"stdout": "one\n"} and lines[-1]["status"] == 4)

content = os.urandom(3_000_000)
written = write.sync(client=client, path="/tmp/content", form=WriteForm.FILE, body=File(payload=io.BytesIO(content)))
step("write", written.length == len(content))
step("read", read.sync(client=client, path="/tmp/content", form=ReadForm.FILE).payload.read() == content)
lines = [json.loads(line) for line in entries.sync(client=client, path="/tmp").splitlines()]
step("entries", ("content", len(content)) in [(line["path"], line["size"]) for line in lines])
step("stats", json.loads(stats.sync(client=client))["memoryTotal"] > 0)

signal.sync_detailed(client=client, signal=1)
with client.get_httpx_client().stream("GET", "/log", params={"follow": True}) as answer:
    step("signal", any(line == "hup" for line in answer.iter_lines()))
step("log", b"hup\n" in log.sync(client=client).payload.read())

with ThreadPoolExecutor() as pool:
    sent.clear()
    waiting = pool.submit(wait.sync, client=client)
    # First wait, then kill: after the kill, the job may already be gone.
    sent.wait()
    step("kill", kill.sync(client=client).killed == Killed.COMMAND)
    step("wait for the end", waiting.result().state == JobState.FAILED)
