"""What a simulated server can be told: the engine's shape, and the server's manners.

The defaults resemble one small model on one GPU: 256 seats, 10 ms for a step, a little more for each sequence that
runs, 20,000 prompt tokens a second, room for 262,144 tokens.
"""

from dataclasses import dataclass, field
from pathlib import Path

from lowtide.domain.errors import SettingsError
from lowtide.simulate.faults import FaultRate

LISTED_MODELS = ("claude-haiku-4-5", "claude-sonnet-5", "claude-opus-5")
"""What `/v1/models` lists when every name answers."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The shape of the engine. Times are those of speed 1."""

    seats: int = 256
    """Sequences that run at once: vLLM's max_num_seqs."""
    step_base_ns: int = 10_000_000
    step_per_sequence_ns: int = 40_000
    prompt_tokens_per_s: int = 20_000
    step_prompt_tokens_max: int = 2_048
    """Prompt tokens worked on in one step: vLLM's max_num_batched_tokens."""
    block_tokens: int = 16
    blocks: int = 16_384
    context_tokens_max: int = 200_000

    def __post_init__(self) -> None:
        for name in ("seats", "prompt_tokens_per_s", "step_prompt_tokens_max", "block_tokens", "blocks"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1")
        if self.step_base_ns < 1 or self.step_per_sequence_ns < 0:
            raise SettingsError("a step takes time: step_base must be above 0 and step_per_sequence not below it")

    @property
    def context_tokens(self) -> int:
        """The longest prompt and reply together that can ever run: one sequence must fit into the blocks."""
        return min(self.context_tokens_max, self.blocks * self.block_tokens)

    @property
    def prompt_token_ns(self) -> int:
        return 1_000_000_000 // self.prompt_tokens_per_s


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server answers, and how reliably."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    speed: float = 1.0
    """How much faster than the engine's own times; 0 means that nothing waits."""
    seed: int = 0
    output_tokens_median: int = 120
    output_tokens_sigma: float = 0.7
    models: tuple[str, ...] = ()
    """The models that exist; empty: every name answers."""
    api_key: str | None = None
    """The key a call must carry; None: any or none."""
    faults: tuple[FaultRate, ...] = ()
    allow_crash: bool = False
    log: Path | None = None
    body_bytes_max: int = 32 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.speed < 0:
            raise SettingsError("--speed must be 0 (no delay at all) or more")
        if self.output_tokens_median < 1:
            raise SettingsError("--output-tokens must be at least 1")
        if sum(fault.rate for fault in self.faults) > 1:
            raise SettingsError("the rates of all --fault together must not pass 1")
