"""`lowtide doctor`: each thing that can be wrong is named with what to do, and what is well is said to be."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lowtide.app.doctor import machine
from lowtide.app.doctor.examine import examine
from lowtide.app.doctor.findings import Finding, Level, length_text
from lowtide.app.doctor.machine import (
    check_clock,
    check_data,
    check_disk,
    check_fsync,
    check_open_files,
    file_system_of,
)
from lowtide.app.doctor.stores import check_database, check_objects
from lowtide.app.doctor.upstreams import check_upstreams
from lowtide.app.settings import Settings
from lowtide.ports.clock import SystemClock
from lowtide.storage.inspection import inspect
from lowtide.storage.sqlite import SqliteStore

Answer = Callable[..., str]
MODELS = {"data": [{"id": "qwen3-8b", "type": "model"}], "has_more": False}


@pytest.fixture
def answers() -> Iterator[Answer]:
    """Start a model server that answers every message with a status; returns its URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, *, models: Any = MODELS) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/messages"
                assert self.rfile.read(int(self.headers["content-length"])) == b"{}"
                self._reply(status, {"type": "error", "error": {"type": "api_error", "message": "no"}})

            def do_GET(self) -> None:
                self._reply(404 if models is None else 200, models)

            def _reply(self, status: int, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


async def upstream_findings(**upstream: Any) -> list[Finding]:
    return [each async for each in check_upstreams(Settings(upstreams=[{"name": "box", **upstream}]))]


def levels(findings: list[Finding]) -> list[Level]:
    return [each.level for each in findings]


async def make_database(data: Path) -> Path:
    path = data / "lowtide.db"
    store = SqliteStore(path, SystemClock())
    await store.open()
    await store.close()
    return path


# ---------------------------------------------------------------------------------------------- upstreams


async def test_an_upstream_that_refuses_an_empty_message_as_it_should_is_well(answers: Answer) -> None:
    reachable, models = await upstream_findings(url=answers(400))
    assert levels([reachable, models]) == [Level.OK, Level.OK]
    assert "credential accepted" in reachable.text
    assert models.text == "qwen3-8b"


@pytest.mark.parametrize(
    ("status", "level", "said"),
    [
        (401, Level.FAIL, "refuses our credential"),
        (403, Level.FAIL, "refuses our credential"),
        (404, Level.FAIL, "has no /v1/messages"),
        (503, Level.WARN, "HTTP 503"),
    ],
)
async def test_what_an_upstream_answers_is_judged(answers: Answer, status: int, level: Level, said: str) -> None:
    found, *_ = await upstream_findings(url=answers(status))
    assert found.level is level
    assert said in found.text
    assert found.do


async def test_an_upstream_that_is_down_fails_with_its_url() -> None:
    (found,) = await upstream_findings(url="http://127.0.0.1:1")
    assert found.level is Level.FAIL
    assert "http://127.0.0.1:1" in found.do


async def test_a_key_that_is_not_there_fails_and_is_never_shown(
    answers: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = answers(401)
    (missing,) = await upstream_findings(url=url, key_env="NO_SUCH_KEY")
    assert (missing.level, "NO_SUCH_KEY" in missing.text) == (Level.FAIL, True)
    monkeypatch.setenv("SOME_KEY", "canary-1234")
    (refused,) = await upstream_findings(url=url, key_env="SOME_KEY")
    assert "canary" not in repr(refused)


async def test_a_model_that_is_configured_and_not_listed_is_told(answers: Answer) -> None:
    *_, models = await upstream_findings(url=answers(400), models=["qwen3-8b", "absent", "gpt-*"])
    assert models.level is Level.WARN
    assert "does not list absent" in models.text


async def test_an_upstream_without_a_list_of_models_still_works(answers: Answer) -> None:
    reachable, models = await upstream_findings(url=answers(400, models=None))
    assert levels([reachable, models]) == [Level.OK, Level.WARN]


async def test_no_upstream_at_all_is_told() -> None:
    (found,) = [each async for each in check_upstreams(Settings())]
    assert found.level is Level.WARN


# ---------------------------------------------------------------------------------------------- stores


async def test_a_sound_database_is_told_by_its_schema_and_not_changed(tmp_path: Path) -> None:
    path = await make_database(tmp_path)
    before = path.read_bytes()
    (found,) = [each async for each in check_database(Settings(data=tmp_path))]
    assert found.level is Level.OK
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("version", "level", "said"), [("9999", Level.FAIL, "newer"), ("0001", Level.WARN, "older Lowtide")]
)
async def test_a_database_of_another_version_is_told(tmp_path: Path, version: str, level: Level, said: str) -> None:
    path = await make_database(tmp_path)
    conn = sqlite3.connect(path)
    conn.execute("UPDATE alembic_version SET version_num = ?", (version,))
    conn.commit()
    conn.close()
    (found,) = [each async for each in check_database(Settings(data=tmp_path))]
    assert found.level is level
    assert said in found.text


async def test_a_damaged_database_fails(tmp_path: Path) -> None:
    (tmp_path / "lowtide.db").write_bytes(b"no database at all" * 1000)
    (found,) = [each async for each in check_database(Settings(data=tmp_path))]
    assert (found.level, "damaged" in found.text) == (Level.FAIL, True)


async def test_a_check_that_would_take_too_long_says_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await make_database(tmp_path)
    monkeypatch.setattr("lowtide.storage.inspection._STEPS_BETWEEN_LOOKS", 1)
    found = inspect(path, check_s=0)
    assert (found.damage, found.whole) == (None, False)


async def test_objects_are_written_and_read_back(tmp_path: Path) -> None:
    (found,) = [each async for each in check_objects(Settings(data=tmp_path))]
    assert found.level is Level.OK
    assert not [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]


# ---------------------------------------------------------------------------------------------- machine


def test_a_directory_that_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    (found,) = check_data(tmp_path / "new" / "data")
    assert found.level is Level.OK
    assert not (tmp_path / "new").exists()


def test_a_directory_that_everyone_may_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_open_to_others", lambda _: True)
    (found,) = check_data(tmp_path)
    assert found.level is Level.WARN
    assert found.do == f"chmod 700 {tmp_path}"


def test_a_directory_behind_a_closed_one_is_not_open_to_others(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    tmp_path.chmod(0o700)
    (found,) = check_data(data)
    assert found.level is Level.OK


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_of_another_user_fails(tmp_path: Path) -> None:
    (tmp_path / "lowtide.db").touch(0o400)
    (found,) = check_data(tmp_path)
    assert found.level is Level.FAIL


def test_a_file_in_the_place_of_the_directory_fails(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    (found,) = check_data(tmp_path / "data")
    assert found.level is Level.FAIL


@pytest.mark.parametrize(
    ("free", "level"), [(1, Level.FAIL), (5 * machine.GIB, Level.WARN), (500 * machine.GIB, Level.OK)]
)
def test_the_room_on_the_disk_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    usage = type("Usage", (), {"free": free, "total": 1000 * machine.GIB})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    first, *_ = check_disk(tmp_path)
    assert first.level is level


def test_the_file_system_is_that_of_the_deepest_mount() -> None:
    mounts = "/dev/a / ext4 rw 0 0\nhost:/x /srv nfs4 rw 0 0\ntmpfs /srv/fast\\040disk tmpfs rw 0 0\n"
    assert file_system_of(Path("/srv/data"), mounts) == "nfs4"
    assert file_system_of(Path("/srv/fast disk/data"), mounts) == "tmpfs"
    assert file_system_of(Path("/home"), mounts) == "ext4"


def test_a_flush_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    (found,) = check_fsync(tmp_path)
    assert found.subject == "fsync"
    assert " ms" in found.text
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_no_file_fails(tmp_path: Path) -> None:
    (found,) = check_fsync(tmp_path / "absent")
    assert found.level is Level.FAIL


def test_the_clock_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_kernel_says", lambda: 0)
    assert levels(list(check_clock())) == [Level.OK]
    monkeypatch.setattr(machine, "_kernel_says", lambda: 5)
    assert levels(list(check_clock())) == [Level.WARN]
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert levels(list(check_clock())) == [Level.FAIL]


def test_too_low_a_limit_on_open_files_fails_with_the_number_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(upstreams=[{"url": "http://127.0.0.1:1", "in_flight_max": 5000}])
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1_000_000))
    (found,) = check_open_files(settings)
    assert (found.level, found.do) == (Level.FAIL, "ulimit -n 5256")
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1024))
    (found,) = check_open_files(settings)
    assert "in_flight_max" in found.do


async def test_an_examination_looks_at_everything_and_changes_nothing(tmp_path: Path) -> None:
    found = [each async for each in examine(Settings(data=tmp_path / "data"))]
    subjects = [each.subject for each in found]
    assert subjects[0] == "data"
    assert {"disk space", "file system", "fsync", "clock", "open files", "database", "objects"} <= set(subjects)
    assert list(tmp_path.iterdir()) == []
    assert all(bool(each.do) == (each.level is not Level.OK) for each in found)


def test_lengths_read_well() -> None:
    assert [length_text(each) for each in (5, 2048, 3 * 1024**3, 5 * 1024**4)] == [
        "5 B",
        "2.0 KiB",
        "3.0 GiB",
        "5.0 TiB",
    ]
