"""What `lowtide serve` claims before it starts: the address, the port and the data directory."""

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from lowtide.app.directory import Occupied, empty_spool, held, prepare
from lowtide.app.listen import listen, resolve, url_of
from lowtide.app.supervisor import BACKOFF_S, STABLE_S, Backoff
from lowtide.domain.errors import SettingsError


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.9"])
def test_a_loopback_address_is_listened_on(host: str) -> None:
    address = resolve(host, 0)
    assert address.is_loopback
    with listen(address) as listener:
        assert url_of(listener).startswith("http://")
        socket.create_connection(listener.getsockname()[:2]).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_any_other_address_is_told_from_loopback(host: str) -> None:
    assert not resolve(host, 0).is_loopback


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused_in_a_sentence(host: str) -> None:
    with pytest.raises(SettingsError, match=f'^The setting host is "{host}", but it should be an address of this mach'):
        listen(resolve(host, 0))


def test_a_port_in_use_is_named() -> None:
    with listen(resolve("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(SettingsError, match=f"^Port {port} of 127.0.0.1 is in use by another program"):
            listen(resolve("127.0.0.1", port))


def test_the_data_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    assert prepare(tmp_path / "a/b") == tmp_path / "a/b"
    assert list((tmp_path / "a/b").iterdir()) == []


def test_a_data_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="cannot be written to"):
        prepare(tmp_path / "file/data")


def test_a_data_directory_is_held_once(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(Occupied, match=f"process {os.getpid()}"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_a_hold_that_a_dead_process_left_to_its_child_is_waited_for(tmp_path: Path) -> None:
    with held(tmp_path) as lock:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock])
        os.pwrite(lock, b"0" * 16, 0)  # no process has this number
    waited = threading.Timer(0.2, child.communicate)
    waited.start()
    with held(tmp_path):
        assert child.wait() == 0
    waited.join()


def test_the_spool_is_emptied(tmp_path: Path) -> None:
    spool = empty_spool(tmp_path)
    (spool / "left.body").write_bytes(b"x")
    assert list(empty_spool(tmp_path).iterdir()) == []


def test_the_wait_before_a_restart_grows_to_a_cap_and_starts_anew_after_a_stable_life() -> None:
    backoff = Backoff()
    assert [backoff.after(0) for _ in range(len(BACKOFF_S) + 2)] == [*BACKOFF_S, BACKOFF_S[-1], BACKOFF_S[-1]]
    assert backoff.after(STABLE_S) == BACKOFF_S[0] == 0
    assert backoff.after(0) == BACKOFF_S[1]
