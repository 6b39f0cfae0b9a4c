"""A worker run in the test's own loop, against an upstream whose every reply the test writes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lowtide.dispatch.choose import Chooser
from lowtide.dispatch.kit import Kit
from lowtide.dispatch.report import Reporter
from lowtide.dispatch.settings import WorkerSettings
from lowtide.dispatch.worker import Worker
from lowtide.domain.outcomes import Outcome
from lowtide.domain.states import BatchState
from lowtide.ports.metadata import Batch
from lowtide.ports.upstream import Model, Reply, ReplyStream
from support.lab import Lab
from support.reading import results_of

QUICK = WorkerSettings(
    lease_s=2.0,
    commit_interval_s=0.05,
    ahead_s=0.2,
    backoff_s=0.01,
    backoff_max_s=0.05,
    circuit_wait_s=0.02,
    circuit_wait_max_s=0.05,
    suspect_wait_s=0.1,
    idle_poll_s=0.02,
    grace_s=5.0,
)

Script = Callable[[str], Awaitable[Reply]]
"""Answers the prompt of a request; may raise an UpstreamError."""


def params(prompt: str, **members: object) -> bytes:
    """Return params whose only message is `prompt`."""
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": prompt}]} | members
    return json.dumps(body).encode()


def message(text: str = "ok") -> Reply:
    """Return a reply with a whole Message."""
    body = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    return Reply(200, {"content-type": "application/json"}, json.dumps(body).encode())


def problem(status: int, error_type: str, text: str = "no", **headers: str) -> Reply:
    """Return a reply with an error in the contract's envelope."""
    body = {"type": "error", "error": {"type": error_type, "message": text}}
    return Reply(status, headers, json.dumps(body).encode())


@dataclass
class ScriptedUpstream:
    """An upstream that answers as the script says and remembers what it was asked, in order."""

    script: Script
    name: str = "scripted"
    in_flight_max: int = 8
    fetches_urls: bool = False
    models_served: str = ""
    prompts: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    in_flight: int = 0
    in_flight_most: int = 0

    def serves(self, model: str) -> bool:
        return not self.models_served or model in self.models_served.split()

    def prepare(self, params: bytes, model: str) -> bytes:  # noqa: ARG002 - the port's signature
        return params

    async def send(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:  # noqa: ARG002 likewise
        prompt = json.loads(body)["messages"][0]["content"]
        self.prompts.append(prompt)
        self.headers.append(headers)
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight, self.in_flight_most)
        try:
            return await self.script(prompt)
        finally:
            self.in_flight -= 1

    async def open(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> ReplyStream:
        raise NotImplementedError

    async def models(self) -> Sequence[Model]:
        return []

    async def close(self) -> None:
        return None


def kit_of(lab: Lab, *upstreams: ScriptedUpstream, settings: WorkerSettings = QUICK) -> Kit:
    """Return what a worker of this lab works with, for tests of one part of it."""
    return Kit(lab.store, lab.objects, upstreams, settings, lab.clock, Chooser(lab.store), Reporter())


@asynccontextmanager
async def working(
    lab: Lab, *upstreams: ScriptedUpstream, settings: WorkerSettings = QUICK, name: str = "worker"
) -> AsyncIterator[asyncio.Event]:
    """Run a worker meanwhile; on leaving, stop it and let it drain. Yields what stops it."""
    stop = asyncio.Event()
    worker = Worker(name, lab.store, lab.objects, upstreams, settings, lab.clock)
    running = asyncio.create_task(worker.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await running


async def ended(lab: Lab, batch: Batch) -> Batch:
    """Return the batch once it has ended."""
    while (found := await lab.batches.get(batch)).state is not BatchState.ENDED:
        await lab.store.changed(0.05)
    return found


async def outcomes(lab: Lab, batch: Batch) -> dict[str, tuple[Outcome, str]]:
    """Return each request's outcome and text (of the reply, or of the error), by prompt position as custom_id."""
    found: dict[str, tuple[Outcome, str]] = {}
    for line in (await results_of(lab, batch)).splitlines():
        entry = json.loads(line)
        result = entry["result"]
        match result["type"]:
            case "succeeded":
                text = result["message"]["content"][0]["text"]
            case "errored":
                text = f"{result['error']['error']['type']}: {result['error']['error']['message']}"
            case _:
                text = ""
        assert entry["custom_id"] not in found
        found[entry["custom_id"]] = (Outcome(result["type"]), text)
    return found
