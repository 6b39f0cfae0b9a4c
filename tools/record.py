"""Record what commands look like at a terminal, as text in `docs/recordings/`: `python tools/record.py [NAME …]`.

A real terminal (tmux, 100 columns) with a real server and a simulated model behind it; what is typed is run, and the
screen is kept as it stands at the moments that a scene names. Another recording is another entry in SCENES. Needs tmux
(on Debian: apt-get install tmux). The pages are not compared by a test: times and ids differ each time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT / "docs/recordings"
COLUMNS, ROWS = 110, 40
PROMPT = "$ "
WAIT_S = 60.0

Scene = Callable[["Terminal"], None]


class Terminal:
    """A shell in a terminal. `shots` are the screens that were kept."""

    def __init__(self, directory: Path, variables: Mapping[str, str]) -> None:
        self._socket = directory / "tmux"
        self.directory = directory
        self.shots: list[str] = []
        # Without the variable tmux takes this terminal for one inside another; without LANG it draws no lines.
        environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
        environment |= {
            "PS1": PROMPT,
            "LANG": "C.UTF-8",
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
            **variables,
        }
        size = ("-x", str(COLUMNS), "-y", str(ROWS), "-c", str(directory))
        self._tmux(
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            *size,
            "env",
            f"PS1={PROMPT}",
            "bash",
            "--norc",
            "--noprofile",
            environment=environment,
        )
        self._until(lambda screen: screen.endswith(PROMPT.strip()))

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        """Press one key, such as C-c."""
        self._tmux("send-keys", key)

    def shot(self, text: str) -> None:
        """Keep the screen once a text is on it."""
        self.shots.append(self._until(lambda screen: text in screen))

    def finished(self, text: str = "") -> None:
        """Keep the screen once a text is on it and the prompt is back, and clear it."""
        done = self._until(lambda screen: text in screen and screen.endswith(f"\n{PROMPT.strip()}"))
        self.shots.append(done.removesuffix(PROMPT.strip()).rstrip())
        self._tmux("send-keys", "clear", "Enter")
        self._until(lambda screen: screen == PROMPT.strip())

    def close(self) -> None:
        self._tmux("kill-server")

    def _until(self, found: Callable[[str], bool]) -> str:
        end_s = time.monotonic() + WAIT_S
        while time.monotonic() < end_s:
            screen = self._tmux("capture-pane", "-p").rstrip()
            if found(screen):
                return screen
            time.sleep(0.05)
        raise TimeoutError(f"It never came; the screen is:\n{screen}")

    def _tmux(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        command = ["tmux", "-S", str(self._socket), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def watch(terminal: Terminal) -> None:
    """A batch is created and watched."""
    terminal.type("lowtide batches create requests.jsonl --watch")
    terminal.shot("succeeded")
    terminal.finished(" ended after ")
    terminal.type("lowtide batches watch msgbatch_nosuch; echo status $?")
    terminal.finished("status 1")


def show(terminal: Terminal) -> None:
    """A batch is shown while it runs, and when its model server is away; then the server itself cannot be reached."""
    terminal.type("lowtide batches create requests.jsonl --quiet > id; sleep 4; lowtide batches show $(cat id)")
    terminal.finished("tokens")
    terminal.type("kill $MODEL  # the model server")
    terminal.type(
        "until lowtide batches show $(cat id) | grep stands; do sleep 1; done; lowtide batches show $(cat id)"
    )
    terminal.finished("tokens")
    terminal.type("lowtide batches show $(cat id) --url http://127.0.0.1:9; echo status $?")
    terminal.finished("status 3")


def results(terminal: Terminal) -> None:
    """Results are followed, summed up, filtered, and asked of a batch that runs."""
    terminal.type(
        "lowtide batches create requests.jsonl --quiet > id; lowtide batches results $(cat id); echo status $?"
    )
    terminal.finished("status 1")
    terminal.type("lowtide batches results $(cat id) --follow --output results.jsonl --summary")
    terminal.finished("tokens:")
    terminal.type("lowtide batches results $(cat id) --outcome errored | head -n 1")
    terminal.finished("custom_id")


def run(terminal: Terminal) -> None:
    """A run is stopped by Ctrl-C, goes on, and is summed up; then its input is wrong."""
    command = "lowtide run good.jsonl --output answers.jsonl --upstream $UPSTREAM; echo status $?"
    terminal.type(command)
    terminal.shot(" left ")
    terminal.press("C-c")
    terminal.finished("status 130")
    terminal.type(command)
    terminal.shot(" left ")
    terminal.finished("status 0")
    terminal.type("lowtide run requests.jsonl --output others.jsonl --upstream $UPSTREAM; echo status $?")
    terminal.finished("status 2")


SCENES: dict[str, Scene] = {
    "batches-watch": watch,
    "batches-show": show,
    "batches-results": results,
    "run": run,
}


@contextmanager
def started(directory: Path, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run a server and yield the URL in its first line, and its process."""
    out, errors = directory / f"{arguments[0]}.out", directory / f"{arguments[0]}.err"
    with out.open("wb") as told, errors.open("wb") as logged:
        process = subprocess.Popen(
            [sys.executable, "-m", "lowtide", *arguments, "--port", "0"], stdout=told, stderr=logged, cwd=directory
        )
    try:
        while "http" not in (text := out.read_text(encoding="utf-8").partition("\n")[0]):
            if process.poll() is not None:
                raise RuntimeError(errors.read_text(encoding="utf-8"))
            time.sleep(0.05)
        yield text[text.index("http") :].split()[0], process.pid
    finally:
        process.terminate()
        process.wait()


def write_requests(path: Path, *, good: bool) -> None:
    """Write an input, in which a few requests are wrong unless it is to be good."""
    with path.open("w", encoding="utf-8") as lines:
        for number in range(1500):
            question = {"role": "user", "content": f"Is this review positive? Number {number}."}
            messages = [] if number % 500 == 499 and not good else [question]
            params = {"model": "qwen3-8b", "max_tokens": 64, "messages": messages}
            lines.write(json.dumps({"custom_id": f"review-{number}", "params": params}) + "\n")


def record(name: str) -> None:
    """Make one recording."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        write_requests(directory / "requests.jsonl", good=False)
        write_requests(directory / "good.jsonl", good=True)
        with (
            started(directory, "simulate", "--max-num-seqs", "64") as (upstream, model),
            started(directory, "serve", "--upstream", upstream) as (url, _),
            closing(Terminal(directory, {"LOWTIDE_URL": url, "UPSTREAM": upstream, "MODEL": str(model)})) as terminal,
        ):
            SCENES[name](terminal)
    text = "\n\n".join(terminal.shots)
    (RECORDINGS / f"{name}.txt").write_text(f"{text}\n", encoding="utf-8")
    print(f"docs/recordings/{name}.txt")


if __name__ == "__main__":
    for scene in sys.argv[1:] or list(SCENES):
        record(scene)
