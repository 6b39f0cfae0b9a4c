"""A real batch from create to results, with a worker killed in the middle: what `make demo` runs.

It starts a simulated model server and `lowtide serve`, sends 1,200 of the example requests through the official Python
SDK, kills a worker with SIGKILL while they run, downloads the results and counts them. The status is 0 only if each
request has exactly one result and the counts agree. Its processes end with it; its data is in a temporary directory
unless --data names one.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anthropic
from load import examples

LOWTIDE = Path(sys.executable).with_name("lowtide")
URL = re.compile(r"http://[0-9.]+:\d+")
KILL_AT_SHARE = 1 / 3
ANSWERED = re.compile(r"^vllm:request_success_total\S* (\S+)$", re.MULTILINE)
START_S = 30
END_S = 240

POINT_IT = """
Now point it at a real model. One command serves it:

  vLLM         lowtide serve --data ./lowtide-data --upstream http://127.0.0.1:8000
  llama.cpp    lowtide serve --data ./lowtide-data --upstream http://127.0.0.1:8080
  Anthropic    write lowtide.toml, then: ANTHROPIC_API_KEY=... lowtide serve --data ./lowtide-data
               [[upstreams]]
               url = "https://api.anthropic.com"
               key_env = "ANTHROPIC_API_KEY"

and the SDK you already use sends to it:

  import anthropic
  client = anthropic.Anthropic(base_url="http://127.0.0.1:8787", api_key="unused")
  batch = client.messages.batches.create(requests=[{"custom_id": "first", "params": {
      "model": "claude-haiku-4-5", "max_tokens": 200,
      "messages": [{"role": "user", "content": "Why do harbours silt up?"}]}}])
  print(batch.id, batch.processing_status)  # later: client.messages.batches.results(batch.id)
"""


class DemoFailed(Exception):
    """What did not add up, in plain words."""


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_200, help="how many requests to send (1200)")
    parser.add_argument("--data", type=Path, help="keep Lowtide's data here instead of a temporary directory")
    chosen = parser.parse_args()
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with ExitStack() as stack:
            data = chosen.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lowtide-demo-")))
            run(stack, data, chosen.requests)
    except DemoFailed as failure:
        print(f"\nThe demo failed: {failure}", file=sys.stderr)
        return 1
    print(f"\nEverything adds up, in {time.monotonic() - started:.0f} s.")
    print(POINT_IT, end="")
    return 0


def run(stack: ExitStack, data: Path, number: int) -> None:
    """Send, kill, wait, download and check; DemoFailed says what is wrong."""
    data.mkdir(parents=True, exist_ok=True)
    calls = data / "model-calls.jsonl"
    calls.unlink(missing_ok=True)
    simulate = [LOWTIDE, "simulate", "--port", "0", "--speed", "2.5", "--seed", "7", "--log", calls]
    _, model_url = stack.enter_context(process(simulate, data / "simulate.log"))
    print(f"1. A simulated model server listens at {model_url}. Its replies say that they are simulated.")
    serve = [LOWTIDE, "serve", "--port", "0", "--data", data, "--upstream", model_url]
    server, url = stack.enter_context(process(serve, data / "serve.log"))
    print(f"2. Lowtide serves at {url}, with its data in {data}.")
    client = stack.enter_context(anthropic.Anthropic(base_url=url, api_key="unused", max_retries=5))
    requests = list(examples(number))
    batch = client.messages.batches.create(requests=requests)
    models = sorted({request["params"]["model"] for request in requests})
    print(f"3. The SDK sent one batch of {number:,} requests for {', '.join(models)}: {batch.id}")
    batch = watch(client, batch.id, server, model_url, number)
    check(client, batch, [request["custom_id"] for request in requests])
    again = len(calls.read_bytes().splitlines()) - number
    print(f"7. The kill cost {again} calls: what the dead worker had in flight, or not stored yet, was asked again.")


def watch(client: anthropic.Anthropic, batch_id: str, server: subprocess.Popen[bytes], model: str, number: int) -> Any:
    """Poll until the batch has ended, and kill the worker on the way; returns the ended batch.

    While a batch runs the API counts all of it as processing, so the progress shown is the model server's.
    """
    begun = time.monotonic()
    killed = False
    shown = -1
    while (elapsed := time.monotonic() - begun) < END_S:
        batch = client.messages.batches.retrieve(batch_id)
        if batch.processing_status == "ended":
            if not killed:
                raise DemoFailed("the batch ended before a worker could be killed; send more --requests")
            print(f"   {elapsed:4.0f} s  ended")
            return batch
        if int(elapsed) // 2 > shown:
            shown = int(elapsed) // 2
            print(f"   {elapsed:4.0f} s  {batch.processing_status}; the model server has answered {answered(model):,}")
        if not killed and answered(model) >= number * KILL_AT_SHARE:
            kill_worker(server, elapsed)
            killed = True
        time.sleep(0.2)
    raise DemoFailed(f"the batch had not ended after {END_S} s")


def answered(model: str) -> int:
    """Return how many calls the model server has answered, by its metrics."""
    with urllib.request.urlopen(f"{model}/metrics") as reply:
        found = ANSWERED.search(reply.read().decode())
    return int(float(found[1])) if found else 0


def kill_worker(server: subprocess.Popen[bytes], elapsed: float) -> None:
    """Kill the server's first worker process, without a warning to it."""
    workers = [pid for pid in children(server.pid) if b"worker" in command(pid)]
    if not workers:
        raise DemoFailed("no worker process of `lowtide serve` was found")
    os.kill(workers[0], signal.SIGKILL)
    print(f"4. {elapsed:4.1f} s  kill -9 {workers[0]}: the worker died in the middle of its work.")


def children(pid: int) -> list[int]:
    """Return the processes that `pid` started; Linux says so in /proc, other systems by ps."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    if listing.exists():
        return [int(child) for child in listing.read_text(encoding="ascii").split()]
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = (line.split() for line in shown.stdout.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]


def command(pid: int) -> bytes:
    """Return a process's command line."""
    shown = subprocess.run(["ps", "-p", str(pid), "-o", "args="], capture_output=True, check=False)
    line = Path(f"/proc/{pid}/cmdline")
    return line.read_bytes() if line.exists() else shown.stdout


def check(client: anthropic.Anthropic, batch: Any, sent: list[str]) -> None:
    """Download the results and compare them with what was sent and with the batch's counts."""
    lines: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    samples: dict[str, str] = {}
    for line in client.messages.batches.results(batch.id):
        lines[line.custom_id] += 1
        outcomes[line.result.type] += 1
        samples.setdefault(f"{line.custom_id.split('-')[0]}, {line.result.type}", sample(line))
    print(f"5. {lines.total():,} results came back through the SDK:")
    for outcome, count in sorted(outcomes.items()):
        print(f"   {count:6,}  {outcome}")
    print("   One of each kind:")
    for kind, shown in sorted(samples.items()):
        print(f"   - {kind}: {shown}")
    counts = {name: count for name, count in batch.request_counts.to_dict().items() if count}
    compare(lines, sent, counts, dict(outcomes))
    print("6. Each request has exactly one result, and the batch's counts are those of the lines.")


def compare(lines: Counter[str], sent: list[str], counts: dict[str, Any], outcomes: dict[str, int]) -> None:
    """Raise DemoFailed if a result is missing, doubled, strange or not a success, or if the counts differ."""
    missing, strange = set(sent) - set(lines), set(lines) - set(sent)
    doubled = [custom_id for custom_id, count in lines.items() if count > 1]
    if missing or strange or doubled:
        raise DemoFailed(f"results missing {len(missing)}, doubled {len(doubled)}, of no request {len(strange)}")
    if counts != outcomes:
        raise DemoFailed(f"the batch counts {counts}, its lines {outcomes}")
    if set(outcomes) != {"succeeded"}:
        raise DemoFailed(f"not every request succeeded: {outcomes}")


def sample(line: Any) -> str:
    """Return a short text for one result."""
    if line.result.type != "succeeded":
        return str(line.result.to_dict())[:150]
    block = line.result.message.content[0]
    text = f"{block.name}({block.input})" if block.type == "tool_use" else block.text
    return text if len(text) <= 150 else text[:147] + "..."


@contextmanager
def process(arguments: list[Any], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a process, wait for the address that it prints, and end it at the end; its output goes to `log`."""
    with log.open("wb") as output:
        child = subprocess.Popen(list(map(str, arguments)), stdout=output, stderr=subprocess.STDOUT)
    try:
        yield child, address(child, log)
    finally:
        child.terminate()
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def address(child: subprocess.Popen[bytes], log: Path) -> str:
    """Return the first address in the log of a process that is starting."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8", errors="replace")
        if found := URL.search(text):
            return found[0]
        if child.poll() is not None:
            raise DemoFailed(f"{child.args[1]} ended at once:\n{text}")
        time.sleep(0.05)
    raise DemoFailed(f"{child.args[1]} named no address within {START_S} s; see {log}")


if __name__ == "__main__":
    sys.exit(main())
