"""Every example of the manual does what its page says, on real processes."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from docs.manual import DOCS, ROOT, Block, blocks, pages, pieces
from docs.session import Session

FOLLOWED = [page for page in pages()[1:] if any({"run", "serve"} & set(block.marks) for block in blocks(page))]
"""The README, which comes first, is proved by the quick start: its examples are the same."""
AT_ONCE = 2


@pytest.fixture(scope="module")
def followed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[Path, Future[None]]]:
    """The pages that were chosen, being followed two at a time: most of each is waiting for a process."""
    ours = [item for item in request.session.items if item.path == Path(__file__)]
    chosen = [item.callspec.params["page"] for item in ours if hasattr(item, "callspec")]
    with ThreadPoolExecutor(AT_ONCE) as readers:
        yield {page: readers.submit(follow, page, tmp_path_factory.mktemp(page.stem)) for page in chosen}


def follow(page: Path, directory: Path) -> None:
    """Do what a page says, piece by piece."""
    session = Session(directory)
    try:
        for piece in pieces(page):
            try:
                session.follow(piece)
            except AssertionError as error:
                line = piece.line if isinstance(piece, Block) else "an order"
                raise AssertionError(f"{page.name}, {line}: {error}") from error
    finally:
        session.close()


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_who_follows_the_page_gets_what_it_says(page: Path, followed: Mapping[Path, Future[None]]) -> None:
    followed[page].result()


def test_the_examples_of_the_readme_are_those_of_the_quick_start() -> None:
    first, quick = blocks(ROOT / "README.md"), blocks(DOCS / "quick-start.md")
    shown = [block for block in first if {"run", "serve"} & set(block.marks)]
    assert shown
    proved = [(block.language, without_remarks(block.text)) for block in quick]
    assert all((block.language, without_remarks(block.text)) in proved for block in shown)


def without_remarks(text: str) -> list[str]:
    return [line.partition(" #")[0].rstrip() for line in text.splitlines()]
