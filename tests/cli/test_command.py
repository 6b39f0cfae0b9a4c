"""The `lowtide` command: its help, its version, and errors that a person can read."""

import subprocess
import sys
from pathlib import Path

import pytest

import lowtide
from support.command import run


def test_the_version_is_printed() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"lowtide {lowtide.__version__}\n")


def test_help_lists_the_commands() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("serve", "worker", "simulate"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("serve", ("--host", "--port", "--data", "--upstream", "--workers", "--no-worker", "--config", "Examples:")),
        ("worker", ("--data", "--upstream", "--config", "Example:")),
        ("simulate", ("--port",)),
    ],
)
def test_each_command_has_help(command: str, flags: tuple[str, ...]) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    for flag in flags:
        assert flag in done.stdout


def test_help_loads_neither_the_database_nor_the_server() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['lowtide', '--help']\n"
        "import lowtide.cli.main as command\n"
        "try:\n"
        "    command.main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "print({'sqlalchemy', 'uvicorn', 'starlette', 'pydantic', 'alembic', 'pycurl', 'rich', 'http.client', 'ssl'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n"), done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("serve", "--port", "70000"),
            "lowtide: The setting port is 70000 (from the flag --port), but it should be less than or equal to 65535.\n",
        ),
        (("serve", "--config", "away.toml"), "lowtide: There is no file away.toml, which --config names.\n"),
        (
            ("worker", "--upstream", "here"),
            (
                'lowtide: The setting upstreams[0].url is "here" (from the flag --upstream), but it should be a URL '
                "such as http://127.0.0.1:8000.\n"
            ),
        ),
    ],
)
def test_an_error_is_one_sentence_and_status_2(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (2, sentence, "")


def test_a_bad_variable_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = run("serve", cwd=tmp_path, LOWTIDE_WORKERS="many")
    assert done.returncode == 2
    assert done.stderr == (
        'lowtide: The setting workers is "many" (from the environment variable LOWTIDE_WORKERS), but it should be a '
        "whole number.\n"
    )


def test_an_unknown_flag_names_itself() -> None:
    done = run("serve", "--prot", "1")
    assert done.returncode == 2
    assert "No such option: --prot" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_without_an_upstream_says_what_to_do(tmp_path: Path) -> None:
    done = run("worker", "--data", "data", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("lowtide: There is no model server to send requests to.")
