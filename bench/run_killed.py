"""The examples' batch by `lowtide run`, killed at random moments with all its processes, and resumed to the end.

`python bench/run_killed.py` runs it on a simulated model server, `--gguf FILE` on llama.cpp and that model, `--gguf tiny` on
llama.cpp and a tiny random model made for it. It prints how many upstream calls the kills repeated (on llama.cpp as far as
the workers told) and fails unless each request has one result.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

from run_large import LOWTIDE, count

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run, kill, resume and count; returns 0 if everything adds up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", help="a model file, or `tiny`")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--within", type=float, default=15.0, metavar="SECONDS", help="kill within so long of a start")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lowtide-killed-")))
        source, out = directory / "in.jsonl", directory / "out.jsonl"
        source.write_bytes(b"".join(path.read_bytes() for path in sorted((ROOT / "examples").glob("*.jsonl"))))
        flags = engine(stack, directory, chosen.gguf)
        command = [str(LOWTIDE), "run", str(source), "--output", str(out), "--order", "finish", *flags]
        for _ in range(chosen.kills):
            kill_once(command, directory / "out.jsonl.lowtide", random.uniform(0, chosen.within))
        status = subprocess.run(command, check=False).returncode
        return check(directory, status)


def engine(stack: ExitStack, directory: Path, gguf: str | None) -> list[str]:
    """Return the flags of the engine, which is started if it is the simulated one."""
    if gguf is not None:
        if gguf == "tiny":
            sys.path.append(str(ROOT / "tests"))
            from support.tiny_gguf import write_model  # noqa: PLC0415 its packages are needed for this alone

            gguf = str(write_model(directory / "tiny.gguf"))
        return ["--gguf", gguf]
    simulate = [LOWTIDE, "simulate", "--port", "0", "--log", directory / "calls.jsonl"]
    process = stack.enter_context(subprocess.Popen(list(map(str, simulate)), stdout=subprocess.PIPE, text=True))
    stack.callback(process.terminate)
    assert process.stdout is not None
    return ["--upstream", process.stdout.readline().split()[-1]]


def kill_once(command: list[str], state: Path, after_s: float) -> None:
    """Start the run and kill it and its children after so long."""
    log = state / "run.log"
    known = count(log) if log.exists() else 0
    process = subprocess.Popen(command)
    with suppress(subprocess.TimeoutExpired):
        process.wait(after_s)
    process.kill()
    process.wait()
    for line in (log.read_text(encoding="utf-8").splitlines() if log.exists() else [])[known:]:
        if '"child.started"' in line:
            with suppress(ProcessLookupError):
                os.kill(json.loads(line)["pid"], signal.SIGKILL)
    print(
        f"killed after {after_s:.1f} s with {count(state.with_suffix('')) if state.with_suffix('').exists() else 0} results"
    )
    time.sleep(0.1)


def check(directory: Path, status: int) -> int:
    """Compare results with requests and print what was repeated; returns the status to exit with."""
    ids = Counter(line.split(b'"')[3] for line in (directory / "out.jsonl").read_bytes().splitlines())
    wanted = Counter(line.split(b'"')[3] for line in (directory / "in.jsonl").read_bytes().splitlines())
    calls = directory / "calls.jsonl"
    if calls.exists():
        print(f"repeated upstream calls: {count(calls) - wanted.total()}")
    print(
        f"{ids.total()} results of {wanted.total()} requests, status {status}: {'right' if ids == wanted else 'WRONG'}"
    )
    return 0 if ids == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
