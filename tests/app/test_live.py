"""What a person sees of a real server: why a batch stands still, that it moves again, who works, and streams that end."""

import http.client
import json
import os
import signal
import subprocess
import sys
from typing import Any

from support.serving import HEADERS, Serve, Served, Upstream, until

SHORT = {"LOWTIDE_WORKER__LEASE_S": "2", "LOWTIDE_WORKER__CIRCUIT_WAIT_MAX_S": "0.2"}


def progress(served: Served, batch: str) -> dict[str, Any]:
    status, body = served.call("GET", f"/lowtide/batches/{batch}")
    assert status == 200, body
    return json.loads(body)  # type: ignore[no-any-return]


def standing(served: Served, batch: str) -> str | None:
    found = progress(served, batch)["standing_still"]
    return found and str(found["reason"])


def workers(served: Served, *flags: str) -> subprocess.CompletedProcess[str]:
    url = f"http://127.0.0.1:{served.url.port}"
    command = [sys.executable, "-m", "lowtide", "workers", "list", "--url", url, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def listen(served: Served, batch: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", served.url.port, timeout=60)
    connection.request("GET", f"/lowtide/batches/{batch}/events", headers=HEADERS)
    return connection, connection.getresponse()


def test_a_server_without_workers_says_so_and_stops_though_clients_listen(serve: Serve) -> None:
    served = serve("--no-worker")
    batch = served.create()
    assert standing(served, batch) == "no_worker"
    done = workers(served)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("No worker is running: start one with `lowtide worker`")
    connection, events = listen(served, batch)
    until(lambda: events.readline() == b"event: progress\n")
    assert served.stop() == 0
    assert events.read().endswith(b"\n\n")
    events.close()
    connection.close()
    assert "child.killed" not in [line["event"] for line in served.lines()]


def test_a_worker_is_listed_with_what_it_holds_and_its_counts_outlive_it(serve: Serve, upstream: Upstream) -> None:
    served = serve(**SHORT)
    batch = served.create(3)
    until(lambda: upstream.calls == 3)
    name = f"127.0.0.1:{upstream.server_address[1]}"
    shown = until(lambda: (found := workers(served)).stdout.count("3 of 64") and found)
    assert shown.stdout.splitlines()[0].split()[0] == "worker"
    (worker,) = json.loads(workers(served, "--json").stdout)["data"]
    assert worker["held_chunks"] == 1
    assert [(it["name"], it["limit"], it["trouble"]) for it in worker["upstreams"]] == [(name, 64, None)]
    assert workers(served, "--quiet").stdout == f"{worker['worker']}\n"
    assert standing(served, batch) is None
    upstream.let_go.set()
    until(lambda: served.ended(batch))
    counted = b'lowtide_results_total{outcome="succeeded"} 3.0'
    until(lambda: counted in served.call("GET", "/metrics")[1])
    os.kill(served.pids("worker")[0], signal.SIGKILL)
    until(lambda: len(served.pids("worker")) == 2)
    assert counted in served.call("GET", "/metrics")[1]


def test_a_batch_says_that_its_upstream_is_down_and_goes_on_when_it_is_back(serve: Serve, upstream: Upstream) -> None:
    upstream.let_go.set()
    address = upstream.server_address
    upstream.shutdown()
    upstream.server_close()
    served = serve(**SHORT)
    batch = served.create(4)
    until(lambda: standing(served, batch) == "upstream_down")
    text = progress(served, batch)["standing_still"]["text"]
    assert f"{address[0]}:{address[1]} cannot be reached" in text
    assert "upstream_down" not in workers(served).stdout
    assert "down" in workers(served).stdout
