"""Compares what third-party receivers got with what the file exporter of the same run wrote, field by field.

    compare.py PROGRAM [ARGUMENT ..]

For every way (receiver, protocol, compression) PROGRAM runs once, exporting over OTLP and to the file that is its last argument.
"""

import os
import subprocess
import sys
import tempfile
import time

from normal import differences, spans_of_file
from receivers import oteltest, rotel

RUN_SECONDS = 120
SETTLE_SECONDS = 15

# The HTTP sink of oteltest does not decompress.
WAYS = [
    (oteltest, "grpc", "none"),
    (oteltest, "grpc", "gzip"),
    (oteltest, "http/protobuf", "none"),
    (rotel, "grpc", "none"),
    (rotel, "grpc", "gzip"),
    (rotel, "http/protobuf", "none"),
    (rotel, "http/protobuf", "gzip"),
]


def export(program, endpoint, protocol, compression, file):
    """Runs the program with an environment in which only our variables speak of OpenTelemetry."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=blue%20team",
        "OTEL_SERVICE_NAME": "receivers",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=ci,note=a%2Cb",
    }
    subprocess.run([*program, file], env=env, timeout=RUN_SECONDS, check=True)


def check(program, receiver, protocol, compression, folder):
    """The differences of one way."""
    file = os.path.join(folder, "journeys.jsonl")
    with receiver(protocol, folder) as running:
        export(program, running.endpoint, protocol, compression, file)
        written = spans_of_file(file)
        # A collector passes on in its own time; a sink has everything already.
        deadline = time.monotonic() + SETTLE_SECONDS
        while len(running.spans()) < len(written) and time.monotonic() < deadline:
            time.sleep(0.05)
        found = differences(written, running.spans())
        if running.tenant not in (None, "blue team"):
            found.append(f"header x-tenant: {running.tenant!r}")
    if len(written) < 100:
        found.append(f"only {len(written)} spans in the file")
    return len(written), found


def main():
    sys.stdout.reconfigure(line_buffering=True)
    program = [os.path.abspath(sys.argv[1]), *sys.argv[2:]]
    failed = 0
    for receiver, protocol, compression in WAYS:
        way = f"{receiver.__name__}, {protocol}, {compression}"
        with tempfile.TemporaryDirectory() as folder:
            count, found = check(program, receiver, protocol, compression, folder)
        print(f"{'FAIL' if found else 'ok  '}  {way}: {count} spans")
        for difference in found[:10]:
            print(f"      {difference}")
        failed += bool(found)
    print(f"{len(WAYS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
