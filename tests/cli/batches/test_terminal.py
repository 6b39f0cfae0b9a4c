"""The client commands at a terminal, in a pipe and under Ctrl-C."""

import os
import pty
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from cli.batches.hosted import Hosted

_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class AtTerminal:
    """A command whose input and standard error are a terminal; standard output is a pipe, unless that is too."""

    def __init__(self, *arguments: str, all_of_it: bool = False) -> None:
        self._master, slave = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lowtide", "batches", *arguments],
            stdin=slave,
            stderr=slave,
            stdout=slave if all_of_it else subprocess.PIPE,
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"},
            start_new_session=True,
            # A shell in the background ignores Ctrl-C, and so would its children; a terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no locks are held here
        )
        os.close(slave)

    def until(self, text: str) -> None:
        """Read until a text is there; the suite's timeout bounds it."""
        while text not in self.seen:
            self._read()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Read all that is left and return the exit status."""
        try:
            while True:
                self._read()
        except EOFError:
            pass
        os.close(self._master)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says EIO when the last process has closed its side
            data = b""
        if not data:
            raise EOFError(self.seen)
        self.seen += _CODES.sub("", data.decode())


def test_watch_shows_a_bar_and_ctrl_c_leaves_the_batch_alone(hosted: Hosted) -> None:
    name = hosted.add(processing=3)
    terminal = AtTerminal("watch", name)
    terminal.until("in progress")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert f"The batch goes on; watch it again: lowtide batches watch {name}" in terminal.seen
    assert "Traceback" not in terminal.seen
    assert hosted.paths("POST") == []


def test_a_bar_gives_way_to_the_sum(hosted: Hosted) -> None:
    name = hosted.add(processing=3)
    terminal = AtTerminal("watch", name, all_of_it=True)
    terminal.until("in progress")
    hosted.end(name, 3)
    assert terminal.end() == 0
    assert "3 succeeded." in terminal.seen


@pytest.mark.parametrize(("typed", "status", "left"), [("n\n", 1, 1), ("y\n", 0, 0)])
def test_delete_asks_at_a_terminal(hosted: Hosted, typed: str, status: int, left: int) -> None:
    name = hosted.add(succeeded=3)
    terminal = AtTerminal("delete", name)
    terminal.until("They cannot be had again. [y/N]:")
    terminal.type(typed)
    assert terminal.end() == status
    assert len(hosted.batches) == left


def test_a_table_fits_the_terminal_and_keeps_the_ids_whole(hosted: Hosted) -> None:
    name = hosted.add(succeeded=3, errored=1)
    terminal = AtTerminal("list", all_of_it=True)
    assert terminal.end() == 0
    assert name in terminal.seen
    assert all(len(line) <= 100 for line in terminal.seen.splitlines())


def test_a_reader_that_leaves_ends_the_command_quietly(hosted: Hosted) -> None:
    name = hosted.add(succeeded=5000)
    process = run("batches", "results", name)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b'{"custom_id": "r0"')
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_flags(shell: str) -> None:
    offered = complete(shell, "lowtide batches c")
    assert "create" in offered
    assert "cancel" in offered
    assert "delete" not in offered


def test_the_shell_completes_flags() -> None:
    assert "--follow" in complete("bash", "lowtide batches results --fo")


def test_the_shells_script_can_be_shown() -> None:
    process = run("--show-completion", "zsh", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert b"_LOWTIDE_COMPLETE" in process.communicate()[0]


def complete(shell: str, line: str) -> str:
    """Return what a shell is offered for a line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    action = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    process = run(_LOWTIDE_COMPLETE=f"complete_{shell}", **words, **action)
    return process.communicate()[0].decode()


def run(*arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
    """Start a command in pipes."""
    pipes: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, **pipes, env=os.environ | variables)


PROGRAM = "import sys; sys.argv[0] = 'lowtide'; from lowtide.cli.main import main; main()"
