"""What the manual says exists, and what exists is in the manual."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import typer.core
from typer.testing import CliRunner

from docs.manual import DOCS, ROOT, Block, blocks, commands, pages
from lowtide.api import live_wire
from lowtide.api.standing import Reason
from lowtide.app.settings import Settings
from lowtide.cli.main import app
from lowtide.dispatch.feed import CONDEMNED, DAMAGED
from lowtide.domain import errors
from lowtide.domain.errors import RESULT_ERROR_TYPES, ContractError

SOURCE = ROOT / "src/lowtide"
PROMISED = {"run", "serve", "elsewhere", "setting", "said"}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def all_text() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.rglob("*.md")])


def every_block() -> list[tuple[Path, Block]]:
    return [(path, block) for path in pages() for block in blocks(path)]


# ---------------------------------------------------------------------------------------- examples


def test_every_example_says_how_it_is_proved() -> None:
    for path, block in every_block():
        if block.language in {"sh", "python", "toml", "jsonl"}:
            assert block.file or PROMISED & set(block.marks), f"{path.name}, line {block.line}: {block.text}"


def test_settings_that_no_example_uses_are_settings_that_a_server_takes() -> None:
    shown = [block for _, block in every_block() if block.language == "toml"]
    assert shown
    for block in shown:
        Settings.model_validate(tomllib.loads(block.text))


def test_commands_that_cannot_run_here_exist_as_they_are_written() -> None:
    known = dict(walk(typer.main.get_command(app), ()))
    seen = 0
    for path, block in every_block():
        if block.language == "sh":
            for text in commands(block):
                words = text.split()
                name = max((name for name in known if tuple(words[: len(name)]) == name), key=len)
                flags = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
                assert flags <= known[name], f"{path.name}, line {block.line}: lowtide {text}"
                seen += 1
    assert seen


def walk(command: object, name: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Yield each command's name with the flags that it takes."""
    yield (
        name,
        {flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")} | {"--help", "-h"},
    )
    if isinstance(command, typer.core.TyperGroup):
        for each, found in command.commands.items():
            yield from walk(found, (*name, each))


# ---------------------------------------------------------------------------------------- commands and variables


def test_every_command_stands_in_the_reference_as_its_help_prints_it() -> None:
    reference = page("reference/commands.md")
    for name, flags in walk(typer.main.get_command(app), ()):
        title = " ".join(("lowtide", *name))
        section = reference.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
        assert all(flag in section for flag in flags), title
    printed = CliRunner().invoke(app, ["workspaces", "--help"], env={"COLUMNS": "100"}).output
    assert " ".join(printed.split()[4:30]) in " ".join(reference.split())


def test_every_variable_that_the_code_reads_is_documented() -> None:
    read = re.compile(r'"((?:LOWTIDE|ANTHROPIC)_[A-Z_]*[A-Z])"')
    found = {name for path in SOURCE.rglob("*.py") for name in read.findall(path.read_text(encoding="utf-8"))}
    found -= {"LOWTIDE_ENGINE_KEY"}  # the supervisor sets it for its own children
    found -= {f"LOWTIDE_{name.upper()}" for name in Settings.model_fields}  # the page of settings has the rule
    assert found
    assert {name for name in found if name not in all_text()} == set()


# ---------------------------------------------------------------------------------------- errors


def test_every_status_and_type_of_a_refusal_is_documented() -> None:
    table = page("reference/errors.md")
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ContractError)]
    for kind in kinds:
        made = example(kind)
        if made is not None:
            assert f"| {made.status} | `{made.error_type}` |" in table, kind.__name__
    assert all(f"`{each}`" in table for each in RESULT_ERROR_TYPES)


def example(kind: type[ContractError]) -> ContractError | None:
    """Return an error of a kind, made as cheaply as it lets itself be made; None for the root."""
    for given in ((), ("text",)):
        for named in ({}, {"retry_after_s": 1}):
            try:
                return kind(*given, **named)
            except TypeError:
                continue
    return None


def test_every_text_of_a_refusal_is_documented() -> None:
    table = page("reference/errors.md")
    found = {text for folder in ("api", "intake", "storage", "dispatch", "domain") for text in texts(SOURCE / folder)}
    assert len(found) > 40
    assert {text for text in found if text not in table} == set()
    assert CONDEMNED in table
    assert DAMAGED in table


def texts(folder: Path) -> Iterator[str]:
    """Yield the texts that errors for clients are raised with, and those of requests that fail; … for what differs."""
    kinds = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, ContractError)}
    makers = kinds | {"Refusal", "Failed", "_refuse", "_errored", "_use_try"}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name in makers:
                    yield from filter(None, (template(each) for each in node.args))
            elif path.name == "check.py" and isinstance(node, ast.Return | ast.YieldFrom) and node.value is not None:
                yield from filter(None, [template(node.value)])


def template(node: ast.expr) -> str | None:
    """Return a literal text, with … for what is filled in; None for any other expression."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in values)
        case _:
            return None


# ---------------------------------------------------------------------------------------- routes


def test_every_route_and_every_member_of_what_it_answers_is_documented() -> None:
    text = page("reference/live-api.md")
    routes = re.findall(
        r'"(/(?:lowtide/\w+|metrics|healthz|readyz))', (SOURCE / "api/app.py").read_text(encoding="utf-8")
    )
    assert all(f"GET {route}" in text for route in routes), routes
    shapes = (live_wire.BatchProgress, live_wire.Worker, live_wire.WorkerUpstream)
    for shape in shapes:
        assert all(f"`{name}`" in text for name in shape.__struct_fields__), shape


def test_every_reason_why_a_batch_stands_still_is_explained() -> None:
    text = page("how-to/when-a-batch-stands-still.md")
    assert re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)[: len(Reason)] == [each.value for each in Reason]


# ---------------------------------------------------------------------------------------- the project alone


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_speaks_of_settings_that_exist(path: Path) -> None:
    reference = page("settings.md")
    tables = set(re.findall(r"^## `\[(\w+)\]`", reference, flags=re.MULTILINE))
    for table, name in re.findall(r"`(\w+)\.(\w+)`", path.read_text(encoding="utf-8")):
        if table in tables:
            section = reference.split(f"## `[{table}]`", 1)[1].split("\n## ", 1)[0]
            assert f"| `{name}` |" in section, f"{table}.{name}"


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_links_to_headings_that_exist(path: Path) -> None:
    for name, heading in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", path.read_text(encoding="utf-8")):
        target = (path.parent / name) if name else path
        titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
