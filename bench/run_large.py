"""`lowtide run` of many tiny requests at constant memory, on a simulated model server without any delay.

`python bench/run_large.py --requests 250000` writes the input, runs it in as many batches as it takes, and prints the time
and the peak of RssAnon (memory that is the process's own, without mapped files) of each process. With `--kill SECONDS` the
command is killed after so long and started again; the count of repeated upstream calls is printed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.memory import anonymous_bytes, processes_of

LOWTIDE = Path(sys.executable).with_name("lowtide")
SAMPLE_S = 0.2


def main() -> int:
    """Run the benchmark; returns the status of the last run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=250_000)
    parser.add_argument("--kill", type=float, metavar="SECONDS", help="kill the run after so long, then start it again")
    parser.add_argument("--order", choices=("input", "finish"), default="input")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lowtide-run-") as directory:
        return bench(Path(directory), chosen.requests, chosen.kill, chosen.order)


def bench(directory: Path, requests: int, kill_s: float | None, order: str) -> int:
    """Write the input, run it and print what was seen."""
    source, out, calls = directory / "in.jsonl", directory / "out.jsonl", directory / "calls.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for number in range(requests):
            params = {"messages": [{"role": "user", "content": f"{number}?"}]}
            file.write(json.dumps({"custom_id": f"request-{number}", "params": params}) + "\n")
    simulate = [LOWTIDE, "simulate", "--port", "0", "--speed", "0", "--output-tokens", "4", "--log", calls]
    model = subprocess.Popen(simulate, stdout=subprocess.PIPE, text=True)
    assert model.stdout is not None
    try:
        url = model.stdout.readline().split()[-1]
        flags = ["--upstream", url, "--model", "m", "--max-tokens", "4", "--order", order]
        command = list(map(str, [LOWTIDE, "run", source, "--output", out, *flags]))
        peaks: defaultdict[str, int] = defaultdict(int)
        begun_s = time.monotonic()
        if kill_s is not None:
            watched(command, peaks, kill_s)
        status = watched(command, peaks, None)
        took_s = time.monotonic() - begun_s
    finally:
        model.terminate()
        model.wait()
    lines = count(out)
    print(f"{requests:,} requests: {took_s:.0f} s, {requests / took_s:,.0f}/s, status {status}, {lines:,} results")
    batches = json.loads((directory / "out.jsonl.lowtide/run.json").read_bytes())["rounds"][0]["cuts"]
    print(f"batches: {len(batches)}; repeated upstream calls: {count(calls) - requests}")
    for kind, peak in sorted(peaks.items()):
        print(f"  {kind:8} RssAnon peak {peak / 2**20:6.0f} MiB")
    return status if lines == requests else 1


def watched(command: list[str], peaks: defaultdict[str, int], kill_s: float | None) -> int:
    """Run a command and look at the memory of its processes meanwhile; returns its status."""
    process = subprocess.Popen(command)
    begun_s = time.monotonic()
    while process.poll() is None:
        for pid in processes_of(process.pid):
            kind = kind_of(pid, process.pid)
            peaks[kind] = max(peaks[kind], anonymous_bytes(pid))
        if kill_s is not None and time.monotonic() - begun_s > kill_s:
            process.kill()
        time.sleep(SAMPLE_S)
    return process.returncode


def kind_of(pid: int, root: int) -> str:
    """Return what a process of the run is."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "gone"
    return "run" if pid == root else "worker" if b"worker_process" in command else "splitter"


def count(path: Path) -> int:
    """Return how many lines a file has."""
    with path.open("rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))


if __name__ == "__main__":
    sys.exit(main())
