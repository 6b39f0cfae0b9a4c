"""`lowtide serve` over real processes: whatever is killed, the rest goes on or goes away, and nothing is lost."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lowtide.app import supervisor
from lowtide.app.settings import Settings
from lowtide.domain.errors import StoreUnavailable
from support.serving import Serve, Upstream, gone, until

LONG_LEASE = {"LOWTIDE_WORKER__LEASE_S": "3600"}


def refused(*flags: str) -> str:
    """Return what a `lowtide serve` that does not start says."""
    done = subprocess.run(
        [sys.executable, "-m", "lowtide", "serve", *flags], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


async def test_a_child_that_keeps_dying_is_started_again_and_released_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.0,))
    stop = asyncio.Event()
    released: list[str] = []

    async def release(worker: str) -> None:
        released.append(worker)
        if len(released) == 3:
            stop.set()
        raise StoreUnavailable("a store that is away stops nobody")

    role = supervisor.Role("worker", "lowtide.app.no_such_module", grace_s=0)
    await supervisor.Supervisor(Settings(), release, stop).run([role], [role])
    assert len(set(released)) == len(released) >= 3


def test_a_batch_runs_and_sigterm_ends_every_process_with_0(serve: Serve, upstream: Upstream) -> None:
    served = serve("--workers", "2")
    upstream.let_go.set()
    batch = served.create(40)
    counts = until(lambda: served.ended(batch))
    assert counts["succeeded"] == 40
    pids = [*served.pids("api"), *served.pids("worker")]
    assert len(pids) == 3
    assert served.stop() == 0
    assert all(gone(pid) for pid in pids)
    events = [line["event"] for line in served.lines()]
    assert "child.died" not in events
    assert "child.killed" not in events


def test_a_killed_worker_is_started_again_and_its_leases_are_released_at_once(serve: Serve, upstream: Upstream) -> None:
    served = serve(**LONG_LEASE)
    batch = served.create()
    until(lambda: upstream.calls == 1)
    os.kill(served.pids("worker")[0], signal.SIGKILL)
    until(lambda: upstream.calls == 2)
    upstream.let_go.set()
    assert until(lambda: served.ended(batch))["succeeded"] == 1
    assert len(served.pids("worker")) == 2
    assert len(served.pids("api")) == 1
    assert served.stop() == 0


def test_a_killed_api_is_started_again_and_a_connection_made_meanwhile_is_answered(
    serve: Serve, upstream: Upstream
) -> None:
    served = serve()
    assert served.answers()
    first = served.pids("api")[0]
    os.kill(first, signal.SIGSTOP)
    with socket.create_connection((served.url.hostname, served.url.port)) as waiting:
        waiting.settimeout(30)
        os.kill(first, signal.SIGKILL)
        until(lambda: len(served.pids("api")) == 2)
        with socket.create_connection((served.url.hostname, served.url.port)) as later:
            later.settimeout(30)
            later.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert later.recv(100).startswith(b"HTTP/1.1 200")
        waiting.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert waiting.recv(100).startswith(b"HTTP/1.1 200")
    assert served.answers()
    assert len(served.pids("worker")) == 1


def test_children_of_a_killed_supervisor_exit_and_a_new_server_goes_on(serve: Serve, upstream: Upstream) -> None:
    served = serve()
    batch = served.create()
    until(lambda: upstream.calls == 1)
    pids = [*served.pids("api"), *served.pids("worker")]
    served.process.kill()
    served.process.wait()
    again = serve("--port", str(served.url.port))
    assert again.url == served.url
    upstream.let_go.set()
    for pid in pids:
        until(lambda pid=pid: gone(pid))
    assert until(lambda: again.ended(batch))["succeeded"] == 1
    assert again.stop() == 0


def test_sigterm_lets_what_is_in_flight_finish_and_stores_it(serve: Serve, upstream: Upstream) -> None:
    served = serve()
    batch = served.create()
    until(lambda: upstream.calls == 1)
    served.process.send_signal(signal.SIGTERM)
    until(lambda: any(line["event"] == "supervisor.stopping" for line in served.lines()))
    assert served.call("GET", f"/v1/messages/batches/{batch}")[0] == 200
    upstream.let_go.set()
    assert served.process.wait() == 0
    again = serve("--no-worker")
    assert until(lambda: again.ended(batch))["succeeded"] == 1
    assert upstream.calls == 1


def test_a_second_ctrl_c_ends_everything_at_once(serve: Serve, upstream: Upstream) -> None:
    served = serve()
    served.create()
    until(lambda: upstream.calls == 1)
    served.process.send_signal(signal.SIGINT)
    until(lambda: any(line["event"] == "supervisor.stopping" for line in served.lines()))
    assert served.stop(signal.SIGINT) == 130
    for pid in [*served.pids("api"), *served.pids("worker")]:
        until(lambda pid=pid: gone(pid))


def test_sighup_is_ignored(serve: Serve) -> None:
    served = serve()
    until(served.answers)
    for pid in (served.process.pid, *served.pids("api"), *served.pids("worker")):
        os.kill(pid, signal.SIGHUP)
    assert served.answers()
    assert served.stop() == 0


def test_a_second_server_on_the_same_data_is_refused(serve: Serve, tmp_path: Path, upstream: Upstream) -> None:
    served = serve()
    said = refused("--data", str(tmp_path / "data"), "--port", "0", "--upstream", upstream.url)
    assert said.startswith(f"lowtide: Another `lowtide serve` (process {served.process.pid}) uses the data directory")


def test_a_server_alone_runs_no_worker_and_a_worker_alone_serves_it(
    serve: Serve, tmp_path: Path, upstream: Upstream
) -> None:
    served = serve("--no-worker")
    upstream.let_go.set()
    batch = served.create()
    command = [sys.executable, "-m", "lowtide", "worker", "--data", str(tmp_path / "data"), "--upstream", upstream.url]
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    assert until(lambda: served.ended(batch))["succeeded"] == 1
    worker.terminate()
    assert worker.wait() == 0
    assert served.pids("worker") == []


def test_without_an_upstream_it_says_what_to_do(tmp_path: Path) -> None:
    said = refused("--data", str(tmp_path / "data"))
    assert said.startswith("lowtide: There is no model server to send requests to.")
    for example in ("--upstream http://127.0.0.1:8000", "vllm serve", "llama-server", "simulate", "ANTHROPIC_API_KEY"):
        assert example in said
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_is_named(tmp_path: Path, upstream: Upstream) -> None:
    port = str(upstream.server_address[1])
    said = refused("--data", str(tmp_path / "data"), "--port", port, "--upstream", upstream.url)
    assert said.startswith(f"lowtide: Port {port} of 127.0.0.1 is in use by another program")


def test_no_content_and_no_key_is_in_the_logs_or_the_arguments(
    serve: Serve, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "lowtide.toml").write_text(
        f'[[upstreams]]\nurl = "{upstream.url}"\nkey_env = "CANARY"\n', encoding="utf-8"
    )
    served = serve("--config", str(tmp_path / "lowtide.toml"), CANARY="hunter2")
    upstream.let_go.set()
    batch = served.create()
    until(lambda: served.ended(batch))
    arguments = [Path(f"/proc/{pid}/cmdline").read_bytes() for kind in ("api", "worker") for pid in served.pids(kind)]
    assert served.stop() == 0
    text = served.log.read_text() + served.out.read_text() + repr(arguments)
    for secret in ("hunter2", "Well?", "yes"):
        assert secret not in text
