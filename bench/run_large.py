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
        print(f"  {kind:8} RssAnon peak {peak / 1024:6.0f} MiB")
    return status if lines == requests else 1


def watched(command: list[str], peaks: defaultdict[str, int], kill_s: float | None) -> int:
    """Run a command and look at the memory of its processes meanwhile; returns its status."""
    process = subprocess.Popen(command)
    begun_s = time.monotonic()
    while process.poll() is None:
        for pid in [process.pid, *descendants(process.pid)]:
            kind, size = seen(pid, process.pid)
            peaks[kind] = max(peaks[kind], size)
        if kill_s is not None and time.monotonic() - begun_s > kill_s:
            process.kill()
        time.sleep(SAMPLE_S)
    return process.returncode


def descendants(pid: int) -> list[int]:
    """Return the processes below one."""
    try:
        children = [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        ]
    except OSError:
        return []
    return children + [below for child in children for below in descendants(child)]


def seen(pid: int, root: int) -> tuple[str, int]:
    """Return what a process is and its RssAnon in KiB."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return "gone", 0
    kind = "run" if pid == root else "worker" if b"worker_process" in command else "splitter"
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
    return kind, int(sizes[0]) if sizes else 0


def count(path: Path) -> int:
    """Return how many lines a file has."""
    with path.open("rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))


if __name__ == "__main__":
    sys.exit(main())
