"""Runs schemathesis against a server of its own, then looks whether the server is well and its ledger balances."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

KEY = "the-key-of-the-check"


def get(url, path):
    with urllib.request.urlopen(url + path, timeout=10) as response:
        assert response.status == 200, (path, response.status)
        return response.read().decode()


def address(server, output):
    while server.poll() is None:
        output.seek(0)
        if found := re.search(r"listening on (\S+)\n", output.read()):
            return found[1]
        time.sleep(0.05)
    sys.exit("the server did not start")


def check_ledger(url):
    samples = {}
    for family in text_string_to_metric_families(get(url, "/metrics")):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    for what in ("spans", "events"):
        count = lambda state: sum(n for labels, n in samples[f"journey_{what}_total"] if labels["state"] == state)
        settled = sum(count(state) for state in ("exported", "rejected", "dropped"))
        live = samples[f"journey_live_{what}"][0][1]
        assert count("started") == settled + live > 0, f"{what}: {count('started')} started, {settled} settled, {live} live"
        assert count("rejected") == count("dropped") == 0, f"{what} were lost"
        print(f"{what}: {count('started'):.0f} started, all accounted for")


def main(engine, schemathesis, seconds):
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        environment["EXAMPLE_ENGINE_API_KEY"] = KEY
        command = [engine, "serve", "--port", "0", "--journeys", f"{folder}/journeys.jsonl"]
        # Short answers: it is the API that is looked at.
        command += ["--max-model-len", "48"]
        output = open(f"{folder}/output", "w+")
        server = subprocess.Popen(command, env=environment, stdout=output)
        try:
            url = address(server, output)
            config = os.path.abspath(".ci/schemathesis/schemathesis.toml")
            run = [os.path.abspath(schemathesis), "--config-file", config, "run", f"{url}/openapi.json"]
            run += ["--header", f"Authorization: Bearer {KEY}", "--max-time", seconds, "--report-dir", folder]
            # It keeps a cache where it runs.
            found = subprocess.run(run, cwd=folder).returncode
            get(url, "/health")
            check_ledger(url)
        finally:
            server.terminate()
            code = server.wait(timeout=60)
        assert code == 0, f"the server ended with {code}"
        for line in open(f"{folder}/journeys.jsonl"):
            json.loads(line)
        return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
