"""The pages of the manual as the suite reads them: their fenced blocks, and the marks that say what to do with each.

After the language a fence says what its block is. Readers of the rendered page see none of it.

    sh run [exit=1]     run by bash; every command must succeed, or the block end with that status
    sh serve            each line is a server, left running until the page is done
    sh elsewhere        cannot run here (another program, another machine); its `lowtide` commands must exist as written
    python run          run by this interpreter
    toml file=NAME      written to the page's directory; so are `jsonl file=NAME` and every other language with a file
    toml setting        not used by the page, but must be settings that a server takes
    text said           lines that the block before it printed; … stands for anything

A comment `<!-- test: model 8000 -->` starts a simulated model server in the place of the reader's own at that port,
`<!-- test: gguf NAME -->` writes a model file, and `<!-- test: env NAME=VALUE -->` sets a variable.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = {"settings.md", "states.md", "metrics.md", "fault-points.md", "commands.md"}
_PIECE = re.compile(
    r"^```(?P<language>\w+)(?P<marks>[^\n]*)\n(?P<text>.*?)^```$|^<!-- test: (?P<order>.+?) -->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its marks, its text and the line on which it begins."""

    language: str
    marks: tuple[str, ...]
    text: str
    line: int

    @property
    def file(self) -> str | None:
        return next((mark.removeprefix("file=") for mark in self.marks if mark.startswith("file=")), None)

    @property
    def status(self) -> int:
        return next((int(mark.removeprefix("exit=")) for mark in self.marks if mark.startswith("exit=")), 0)


@dataclass(frozen=True, slots=True)
class Order:
    """What a comment tells the suite to set up."""

    words: tuple[str, ...]


def pages() -> list[Path]:
    """Return the pages that people write: the README and the manual, without decisions, recordings and what is generated."""
    found = [path for path in sorted(DOCS.rglob("*.md")) if path.name not in GENERATED]
    kept = [path for path in found if path.relative_to(DOCS).parts[0] not in {"decisions", "recordings"}]
    return [ROOT / "README.md", *kept]


def pieces(page: Path) -> Iterator[Block | Order]:
    """Yield the blocks and the orders of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _PIECE.finditer(text):
        if found["order"] is not None:
            yield Order(tuple(found["order"].split()))
        else:
            line = text.count("\n", 0, found.start()) + 1
            yield Block(found["language"], tuple(found["marks"].split()), found["text"], line)


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    return [piece for piece in pieces(page) if isinstance(piece, Block)]


def commands(block: Block) -> Iterator[str]:
    """Yield the `lowtide` commands of a shell block, one each, without what follows a pipe or a semicolon."""
    joined = block.text.replace("\\\n", " ")
    for line in joined.splitlines():
        plain = line.partition(" #")[0]
        for found in re.finditer(r"(?:^|[\s(=/])lowtide((?:\s+[^|;&)\n]+)?)", plain):
            yield found[1].strip()
