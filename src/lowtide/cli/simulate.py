"""`lowtide simulate`: a simulated model server, for trying Lowtide out, for tests and for benchmarks."""

from inspect import cleandoc
from pathlib import Path
from typing import Annotated

import typer

from lowtide.simulate import faults
from lowtide.simulate.settings import EngineSettings, ServerSettings

_MARKS = (faults.__doc__ or "").replace("\n\n", "\n\n\b\n")


def simulate(  # noqa: PLR0913  # each argument is an option of the command
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback only, without --anywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one, which the first line names.")] = 8788,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Allow an address that is not loopback.")] = False,
    speed: Annotated[float, typer.Option(help="How much faster than the engine's times; 0: no delay at all.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed and request give the same reply.")] = 0,
    models: Annotated[str, typer.Option(help="Comma list of the models that exist. Default: every name.")] = "",
    api_key: Annotated[str, typer.Option(help="Key that every call must carry. Default: none is wanted.")] = "",
    output_tokens: Annotated[int, typer.Option(help="Median length of a free text, in tokens.")] = 120,
    output_sigma: Annotated[float, typer.Option(help="Spread of the lengths: sigma of the lognormal.")] = 0.7,
    max_num_seqs: Annotated[int, typer.Option(help="Sequences that run at once.")] = 256,
    step_base_ms: Annotated[float, typer.Option(help="Time of an empty step, in milliseconds.")] = 10.0,
    step_per_sequence_ms: Annotated[float, typer.Option(help="What each running sequence adds to a step.")] = 0.04,
    prompt_rate: Annotated[int, typer.Option(help="Prompt tokens a second that are not in the cache.")] = 20_000,
    kv_blocks: Annotated[int, typer.Option(help="Blocks of 16 tokens in the engine's memory.")] = 16_384,
    max_model_len: Annotated[int, typer.Option(help="Longest prompt and reply together, in tokens.")] = 200_000,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="What goes wrong by rate: KIND=RATE, as in 529=0.01 or 429=0.05,retry-after=2. Repeatable."),
    ] = None,
    allow_crash: Annotated[bool, typer.Option("--allow-crash", help="Let the fault `crash` end the process.")] = False,
    log: Annotated[Path | None, typer.Option(help="Append one JSON line per call to this file.")] = None,
) -> None:
    """Serve simulated models: the Messages API, without a model behind it.

    Every reply says that it is simulated. Tools are called with inputs that fit their schemas; prompts that ask for
    JSON and show an object get such an object.
    """
    from lowtide.simulate.run import serve  # noqa: PLC0415 the server is loaded when the command runs

    settings = ServerSettings(
        engine=EngineSettings(
            seats=max_num_seqs,
            step_base_ns=round(step_base_ms * 1e6),
            step_per_sequence_ns=round(step_per_sequence_ms * 1e6),
            prompt_tokens_per_s=prompt_rate,
            blocks=kv_blocks,
            context_tokens_max=max_model_len,
        ),
        speed=speed,
        seed=seed,
        output_tokens_median=output_tokens,
        output_tokens_sigma=output_sigma,
        models=tuple(filter(None, models.split(","))),
        api_key=api_key or None,
        faults=tuple(faults.parse_rate(text) for text in fault or ()),
        allow_crash=allow_crash,
        log=log,
    )
    serve(settings, host, port, anywhere=anywhere)


simulate.__doc__ = f"{cleandoc(simulate.__doc__ or '')}\n\n\b\n{_MARKS}"
