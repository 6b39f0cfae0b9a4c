"""The fault point of keys, with every action: a key that was shown is stored, and one that is stored opens once.

Keys are made by a command, beside a server or without one, so that this point is walked by that command: it is struck by
the fault, run again, and then the store must hold every key that was printed, and at most one that was not.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.rig.auditor import Findings
from tests.rig.server import ROOT

POINT = "store.access"
PATIENCE_S = 60.0


def walk(armed: str, more: Mapping[str, str], folder: Path) -> Findings:
    """Strike one making of a key, make another, and compare what was printed with what is stored."""
    findings = Findings()
    data, environment = folder / "data", os.environ | more
    folder.mkdir(parents=True, exist_ok=True)
    printed = [key for key in (_make(data, environment) for _ in range(2)) if key is not None]
    stored = json.loads(_run(data, environment, "keys", "list", "--json").stdout)
    taken = Path(more["LOWTIDE_FAULTS_TAKEN"])
    if not taken.exists() or armed.rpartition(":")[0] not in taken.read_text(encoding="utf-8"):
        findings.blame("the rig", "the fault was never taken")
    if not printed:
        findings.blame("accepted-is-durable", "no key could be made after the fault")
    if {key["id"] for key in printed} - {key["id"] for key in stored}:
        findings.blame("accepted-is-durable", "a key that was shown is not stored")
    if len(stored) > 2:
        findings.blame("one-winner", f"two commands made {len(stored)} keys")
    findings.counts["keys"] = len(stored)
    return findings


def _make(data: Path, environment: Mapping[str, str]) -> dict[str, Any] | None:
    done = _run(data, environment, "keys", "create", "--json")
    return json.loads(done.stdout) if done.returncode == 0 else None


def _run(data: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lowtide", *arguments, "--data", str(data)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
