"""Someone who installs the built wheel gets the `lowtide` command."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

import lowtide

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Return what a command that succeeds prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.timeout(600)
def test_a_wheel_in_an_empty_environment_gives_the_command(tmp_path: Path) -> None:
    run(Path(sys.executable).with_name("hatchling"), "build", "-t", "wheel", "-d", tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", ROOT / "requirements.lock")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    run(python, "-m", "pip", "check")
    assert lowtide.__version__ in run(tmp_path / "venv/bin/lowtide", "--version", cwd=tmp_path)
    assert "serve" in run(tmp_path / "venv/bin/lowtide", "--help", cwd=tmp_path)
