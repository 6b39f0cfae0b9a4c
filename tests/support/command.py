"""The `lowtide` command as a person runs it, in an environment that has nothing else of ours."""

import subprocess
import sys
from pathlib import Path


def run(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; `variables` are added to its environment."""
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "120", **variables}
    return subprocess.run(
        [sys.executable, "-m", "lowtide", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env=environment,
    )
