"""`lowtide run`: the flags, and what they leave to be guessed."""

import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lowtide.domain.errors import SettingsError

EXAMPLES = """\b
Examples:
  lowtide run prompts.jsonl --upstream http://127.0.0.1:8000 --output answers.jsonl
  lowtide run prompts.jsonl --gguf qwen3-8b-q4_k_m.gguf --model qwen3-8b --max-tokens 300 --system @system.txt
  zcat prompts.jsonl.gz | lowtide run - --upstream http://127.0.0.1:8000 --output answers.jsonl"""

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([1-9]\d{0,8})([smhd])")


def run(  # noqa: PLR0913  # each argument is an option of the command
    *,
    given: Annotated[str, typer.Argument(metavar="IN", help="The file of requests; - reads standard input.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Where the results go. [IN.results.jsonl]")
    ] = None,
    upstream: Annotated[
        list[str] | None,
        typer.Option("--upstream", metavar="URL", help="A model server that answers /v1/messages; may repeat."),
    ] = None,
    key_env: Annotated[
        str | None, typer.Option("--key-env", metavar="NAME", help="The variable that holds the key of --upstream.")
    ] = None,
    gguf: Annotated[Path | None, typer.Option(metavar="FILE", help="Run this model by the embedded llama.cpp.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The model of lines that name none.")] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The system prompt of lines without one; @FILE reads it.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The max_tokens of lines that say none.")
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=65_536, help="Requests at once on each upstream. [64; --gguf: 8]"),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(metavar="input|finish", help="Results in the input's order, at the end, or as they come. [input]"),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what did not succeed in a finished run.")
    ] = False,
    expire: Annotated[
        str | None, typer.Option(metavar="TIME", help="Give up what is not done after this time: 90m, 8h, 2d. [never]")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the run's state is kept. [OUT.lowtide]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings; else LOWTIDE_CONFIG, else ./lowtide.toml if it exists."),
    ] = None,
) -> None:
    """Run a file of requests to a file of results, on a model server or on a model file.

    IN has one request a line, {"custom_id": ..., "params": {...}} or the params alone, or is the JSON body of a create.
    It may be of any size. A run that was stopped, or killed, goes on when the same command is given again.

    Exit status: 0 all succeeded, 1 some did not, 2 the input or a flag is wrong, 130 stopped before the end.
    """
    from lowtide.app.run.command import run_file  # noqa: PLC0415 loaded when the command runs
    from lowtide.app.run.job import Fill, Job  # noqa: PLC0415 likewise

    out = _output(given, output)
    job = Job(
        input=given,
        output=out,
        state=data or out.with_name(out.name + ".lowtide"),
        fill=Fill(model=model, system=_text(system), max_tokens=max_tokens),
        order=_order(order),
        retry_failed=retry_failed,
        expires=expire is not None,
    )
    if key_env is not None and not upstream:
        raise SettingsError("--key-env names the key of --upstream, which is missing; lowtide.toml names others' keys.")
    flags: dict[str, Any] = {}
    if upstream or gguf is not None:
        key = {} if key_env is None else {"key_env": key_env}
        flags["upstreams"] = [{"url": url, **key} for url in upstream or ()]
    if gguf is not None:
        flags["engine"] = {"gguf": gguf}
    if expire is not None:
        flags["limits"] = {"window_s": _duration_s(expire)}
    raise typer.Exit(run_file(job, flags, config, in_flight=in_flight))


def _output(given: str, output: Path | None) -> Path:
    if output is not None:
        return output.expanduser()
    if given == "-":
        raise SettingsError("What comes from standard input has no name; name the file of results with --output.")
    path = Path(given).expanduser()
    return path.with_name(f"{path.name.removesuffix('.jsonl').removesuffix('.json')}.results.jsonl")


def _order(text: str | None) -> Any:
    from lowtide.app.run.job import Order  # noqa: PLC0415 loaded when the command runs

    if text is None:
        return None
    try:
        return Order(text)
    except ValueError:
        raise SettingsError(f'--order is "{text}", but it should be input or finish.') from None


def _text(system: str | None) -> str | None:
    if system is None or not system.startswith("@"):
        return system
    path = Path(system[1:]).expanduser()
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"The file {path}, which --system names, cannot be read as text.") from None


def _duration_s(text: str) -> int:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise SettingsError(f'--expire is "{text}", but it should be a time such as 90m, 8h or 2d.')
    return int(found[1]) * _UNITS_S[found[2]]
