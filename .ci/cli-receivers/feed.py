"""Sends one journey by each road into `journey serve`, and asks the page what arrived.

The findings page is the judge: a type, a parent, an event or a time that was lost or changed on the way would be a finding there.
"""

import contextlib
import glob
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import rotel
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, set_span_in_context

SECONDS = 20
MS = 1_000_000


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, ready):
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.05)
    raise TimeoutError(f"waited in vain for {what}")


def listening(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


@contextlib.contextmanager
def running(command, **options):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def collector(exporter_protocol, behind):
    """rotel, which passes on to `behind` what it gets over gRPC."""
    (agent,) = glob.glob(os.path.join(os.path.dirname(rotel.__file__), "rotel-agent"))
    grpc = free_port()
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "otlp-grpc-endpoint": f"127.0.0.1:{grpc}",
            "otlp-http-endpoint": f"127.0.0.1:{free_port()}",
            "exporter": "otlp",
            "otlp-exporter-endpoint": behind,
            "otlp-exporter-protocol": exporter_protocol,
            "batch-timeout": "50ms",
            "pid-file": os.path.join(folder, "rotel.pid"),
            "log-file": os.path.join(folder, "rotel.log"),
        }
        flags = [part for name, value in arguments.items() for part in (f"--{name}", value)]
        with running([agent, "start", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            wait_for("rotel", lambda: listening(grpc))
            yield f"http://127.0.0.1:{grpc}"


def journey(provider, request_id, start):
    """A journey with a preemption, as an engine that follows the schema writes it."""
    seconds = lambda at: (at - start) / 1e9 + 5000.0
    api, core = provider.get_tracer("vllm.api"), provider.get_tracer("vllm.scheduler")
    request = api.start_span("llm_request", kind=SpanKind.SERVER, start_time=start)
    request.set_attributes({
        "gen_ai.request.id": request_id, "gen_ai.response.model": "python-lm", "http.route": "/v1/completions",
        "gen_ai.usage.prompt_tokens": 7, "gen_ai.usage.completion_tokens": 5, "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0, "gen_ai.request.max_tokens": 5, "gen_ai.request.n": 1,
    })
    sequence = core.start_span("llm_core", context=set_span_in_context(request), start_time=start + MS)
    sequence.set_attribute("gen_ai.request.id", f"{request_id}-0")
    at = start
    for name in ["ARRIVED", "HANDOFF_TO_CORE", "FIRST_RESPONSE_FROM_CORE", "DEPARTED"]:
        request.add_event(f"api.{name}", {"event.ts.monotonic": seconds(at)}, timestamp=at)
        at += 10 * MS
    at, preemptions = start + MS, 0
    for name, phase, tokens, more in [
        ("QUEUED", "WAITING", 0, {}),
        ("SCHEDULED", "PREFILL", 0, {"schedule.kind": "FIRST"}),
        ("FIRST_TOKEN", "DECODE", 1, {}),
        ("PREEMPTED", "DECODE", 2, {}),
        ("SCHEDULED", "DECODE", 2, {"schedule.kind": "RESUME"}),
        ("FINISHED", "DECODE", 5, {"finish.status": "length"}),
    ]:
        preemptions += name == "PREEMPTED"
        sequence.add_event(f"journey.{name}", {
            "event.type": name, "ts.monotonic": seconds(at), "ts.monotonic_ns": round(seconds(at) * 1e9), "phase": phase,
            "decode.done_tokens": tokens, "decode.max_tokens": 5, "num_preemptions": preemptions, **more,
        }, timestamp=at)
        at += 5 * MS
    sequence.end(at - 5 * MS)
    request.end(start + 30 * MS)


def send(exporter, request_id):
    provider = TracerProvider(resource=Resource({"service.name": "python-engine"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    journey(provider, request_id, time.time_ns())
    provider.shutdown()


def roads(grpc, http):
    yield "python-sdk-grpc", GrpcExporter(endpoint=grpc, insecure=True)
    yield "python-sdk-http", HttpExporter(endpoint=http)
    yield "python-sdk-http-gzip", HttpExporter(endpoint=http, compression=Compression.Gzip)
    with collector("grpc", grpc) as rotel_grpc:
        yield "rotel-grpc", GrpcExporter(endpoint=rotel_grpc, insecure=True)
    with collector("http", http.removesuffix("/v1/traces")) as rotel_grpc:
        yield "rotel-http", GrpcExporter(endpoint=rotel_grpc, insecure=True)


def main(binary):
    command = [binary, "serve", "--port", "0", "--grpc-port", "0", "--http-port", "0", "--settle", "0.2"]
    with running(command, stdout=subprocess.PIPE, text=True) as server:
        page, grpc, http = (server.stdout.readline().split()[-1] for _ in range(3))
        passed = 0
        for request_id, exporter in roads(grpc, http):
            send(exporter, request_id)
            wait_for(request_id, lambda: f"1 of {passed + 1} journeys" in get(f"{page}?q={request_id}&preempted=1&status=departed"))
            passed += 1
            found = get(f"{page}?q={request_id}")
            one = get(page.rstrip("/") + re.search(r'href="(/journey/[0-9a-f-]+)"', found).group(1))
            for says in ["where 30.0 ms went", "7 prompt, 5 completion", "python-lm", "python-engine", "journey.PREEMPTED", "RESUME"]:
                assert says in one, f"{request_id}: {says} is not on its page: {one}"
            print(f"{request_id}: arrived whole")
        time.sleep(1.5)
        findings = get(f"{page}findings")
        assert "No findings" in findings, findings
        print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main(sys.argv[1])
