"""The SDKs that the contract tests run, installed once under `.cache/` from the ordinary registries."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache"
OLD_PYTHON_SDK = "anthropic==0.125.0"


def old_python() -> Path:
    """Return the Python of an environment that has the last SDK line before version 1."""
    home = CACHE / "sdk-python-0.125"
    python = home / "bin" / "python"
    if _lacks(home, OLD_PYTHON_SDK.encode()):
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", OLD_PYTHON_SDK]
        subprocess.run(install, check=True)
        _note(home, OLD_PYTHON_SDK.encode())
    return python


def typescript() -> Path:
    """Return a folder with the TypeScript SDK that the lock file names, and the scripts that use it."""
    home = CACHE / "sdk-typescript"
    lock = (HERE / "ts" / "package-lock.json").read_bytes()
    lacking = _lacks(home, lock)
    shutil.copytree(HERE / "ts", home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    if lacking:
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"], cwd=home, check=True)
        _note(home, lock)
    return home


def _lacks(home: Path, wanted: bytes) -> bool:
    """Tell whether `home` still has to be filled with what is wanted."""
    mark = home / ".installed"
    return not mark.is_file() or mark.read_text(encoding="ascii") != hashlib.sha256(wanted).hexdigest()


def _note(home: Path, wanted: bytes) -> None:
    (home / ".installed").write_text(hashlib.sha256(wanted).hexdigest(), encoding="ascii")
