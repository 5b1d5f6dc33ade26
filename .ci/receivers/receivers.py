"""The receivers, each on free ports of the loopback interface, each a context manager with the same four things."""

import contextlib
import glob
import logging
import os
import socket
import subprocess
import time

import rotel as rotel_package
from oteltest.sink import GrpcSink, HttpSink
from oteltest.sink.handler import RequestHandler

from normal import spans_of_requests

START_SECONDS = 10


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


class Kept(RequestHandler):
    """Keeps the trace requests that a sink decoded with Google's protobuf."""

    def __init__(self):
        self.requests = []
        self.tenants = set()

    def handle_trace(self, request, headers):
        self.requests.append(request)
        self.tenants.add({name.lower(): value for name, value in headers.items()}.get("x-tenant"))

    def handle_logs(self, request, headers):
        raise AssertionError("logs were never sent")

    def handle_metrics(self, request, headers):
        raise AssertionError("metrics were never sent")


class Running:
    """Where to send to, and what came."""

    def __init__(self, port, kept, sees_headers):
        self.endpoint = f"http://127.0.0.1:{port}"
        self._kept = kept
        self._sees_headers = sees_headers

    def spans(self):
        return spans_of_requests(list(self._kept.requests))

    @property
    def tenant(self):
        """The header `x-tenant` that came with all requests; `None` where the receiver shows no headers."""
        return next(iter(self._kept.tenants), "") if self._sees_headers else None


@contextlib.contextmanager
def sink(protocol):
    kept, port, logger = Kept(), free_port(), logging.getLogger("sink")
    server = GrpcSink(kept, logger, port=port) if protocol == "grpc" else HttpSink(kept, logger, port=port)
    server.start()
    wait_for(port)
    try:
        yield port, kept
    finally:
        server.stop()


@contextlib.contextmanager
def oteltest(protocol, _folder):
    """A sink in Python: grpcio or http.server, and opentelemetry-proto's messages."""
    with sink(protocol) as (port, kept):
        yield Running(port, kept, sees_headers=True)


@contextlib.contextmanager
def rotel(protocol, folder):
    """A collector in between. What it passes on is read by a sink behind it."""
    (agent,) = glob.glob(os.path.join(os.path.dirname(rotel_package.__file__), "rotel-agent"))
    with sink("grpc") as (behind, kept):
        grpc, http = free_port(), free_port()
        arguments = {
            "otlp-grpc-endpoint": f"127.0.0.1:{grpc}",
            "otlp-http-endpoint": f"127.0.0.1:{http}",
            "exporter": "otlp",
            "otlp-exporter-endpoint": f"http://127.0.0.1:{behind}",
            "batch-timeout": "50ms",
            "pid-file": os.path.join(folder, "rotel.pid"),
            "log-file": os.path.join(folder, "rotel.log"),
        }
        command = [agent, "start", *(part for name, value in arguments.items() for part in (f"--{name}", value))]
        log_path = os.path.join(folder, "rotel.out")
        with open(log_path, "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            wait_for(grpc)
            wait_for(http)
            yield Running(grpc if protocol == "grpc" else http, kept, sees_headers=False)
        except BaseException:
            with open(log_path, encoding="utf-8", errors="replace") as log:
                print(log.read()[-4000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
