"""Real clients over real sockets: the Python SDK before and after version 1, the TypeScript SDK, and curl."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import pytest

from contract import sdks
from contract.serving import Served, requests
from lowtide.upstreams.config import UpstreamConfig
from lowtide.upstreams.messages import MessagesUpstream
from support.simulated import simulated

HERE = Path(__file__).parent
SEPARATED = "one\u2028two\u0085three"


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("roomy")) as served:
        yield served


@pytest.fixture(scope="session")
def old_python() -> Path:
    return sdks.old_python()


@pytest.fixture(scope="session")
def typescript() -> Path:
    return sdks.typescript()


@dataclass
class Steps:
    """What a client says, step by step; the batch that it creates is ended when it asks."""

    served: Served
    client: "subprocess.Popen[str]"

    def next(self, step: str) -> dict[str, Any]:
        assert self.client.stdout is not None
        line = self.client.stdout.readline()
        assert line, f"the client ended before the step {step}"
        said: dict[str, Any] = json.loads(line)
        assert said.pop("step") == step
        return said

    def end(self, batch_id: str) -> None:
        assert self.client.stdin is not None
        self.served.finish(batch_id, {"r0": SEPARATED}, errored=["r2"])
        self.client.stdin.write("\n")
        self.client.stdin.flush()


def run(served: Served, command: Sequence[str | Path], cycles: int, version: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    with subprocess.Popen(
        [*command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as client:
        try:
            steps = Steps(served, client)
            assert steps.next("version")["value"].startswith(version)
            for _ in range(cycles):
                follow(steps)
            assert client.wait(60) == 0
        finally:
            client.kill()


def follow(steps: Steps) -> None:
    """Check one cycle, from create to the last refusal."""
    created = steps.next("created")
    batch_id = created["id"]
    assert (created["status"], created["count"]) == ("in_progress", 3)
    assert "results_url" in steps.next("early")["text"]
    undeletable = steps.next("undeletable")
    assert (undeletable["kind"], undeletable["status"], undeletable["ids_agree"]) == ("BadRequestError", 400, True)
    steps.end(batch_id)
    ended = steps.next("ended")
    url = f"{steps.served.url}/v1/messages/batches/{batch_id}/results"
    assert ended == {"status": "ended", "url": url, "ended": True}
    results = steps.next("results")
    assert results["kinds"] == {"r0": "succeeded", "r1": "succeeded", "r2": "errored"}
    assert sorted(results["texts"]) == ["ok", SEPARATED]
    assert steps.next("canceled") == {"status": "canceling", "began": True}
    listed = steps.next("listed")
    assert set(listed["known"]) <= set(listed["all"])
    assert len(listed["all"]) == len(set(listed["all"]))
    assert steps.next("deleted") == {"type": "message_batch_deleted"}
    unknown = steps.next("unknown")
    assert (unknown["kind"], unknown["message"]) == ("NotFoundError", f"Message Batch {batch_id} not found.")
    refused = steps.next("refused")
    assert (refused["kind"], refused["type"]) == ("BadRequestError", "invalid_request_error")
    assert steps.next("request_id")["value"].startswith("req_01")


def test_0_the_python_sdk_2_runs_the_whole_cycle(roomy: Served) -> None:
    run(roomy, [sys.executable, HERE / "sdk_cycle.py", roomy.url, "beta"], 2, "2.")


def test_0_the_python_sdk_0_runs_the_whole_cycle(roomy: Served, old_python: Path) -> None:
    run(roomy, [old_python, HERE / "sdk_cycle.py", roomy.url, "beta"], 2, "0.125.")


def test_0_the_typescript_sdk_1_runs_the_whole_cycle(roomy: Served, typescript: Path) -> None:
    run(roomy, ["node", typescript / "cycle.mjs", roomy.url], 2, "1.")


@pytest.fixture(scope="module")
def interactive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    with simulated() as url:
        config = UpstreamConfig("simulated", url)
        with (
            Served(tmp_path_factory.mktemp("interactive"), lambda: [MessagesUpstream(config)]) as served,
            anthropic.Anthropic(base_url=served.url, api_key="test-key") as client,
        ):
            yield client


HELLO: Any = [{"role": "user", "content": "hello"}]


def test_12_the_sdk_talks_to_a_model_through_lowtide(interactive: anthropic.Anthropic) -> None:
    message = interactive.messages.create(model="any", max_tokens=20, messages=HELLO)
    assert message.usage.output_tokens > 0
    assert str(message._request_id).startswith("req_01")
    assert interactive.messages.count_tokens(model="any", messages=HELLO).input_tokens > 0


def test_12_the_sdk_streams_from_a_model_through_lowtide(interactive: anthropic.Anthropic) -> None:
    with interactive.messages.stream(model="any", max_tokens=20, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "".join(block.text for block in message.content if block.type == "text")
    assert message.stop_reason is not None


def test_12_the_sdk_lists_models_through_lowtide(interactive: anthropic.Anthropic) -> None:
    models = list(interactive.models.list(limit=1))
    assert len({model.id for model in models}) == len(models) > 0
    assert interactive.models.retrieve(models[0].id) == models[0]


def test_4_1_the_sdk_reads_the_refusal_of_a_body_far_past_the_limit(served: Served) -> None:
    params: Any = {"model": "m", "max_tokens": 1, "messages": HELLO, "system": "x" * 20_000_000}
    with (
        anthropic.Anthropic(base_url=served.url, api_key="k", max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError) as refused,
    ):
        client.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
    assert refused.value.status_code == 413
    assert refused.value.request_id is not None


def lose_first_answer(listener: socket.socket, port: int) -> None:
    """Pass two connections on to `port`, but drop the first one instead of what it was answered."""
    for is_lost in (True, False):
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            sending = threading.Thread(target=pass_on, args=(client, server))
            sending.start()
            answered = server.recv(65536)
            if is_lost:
                client.shutdown(socket.SHUT_RDWR)
            else:
                client.sendall(answered)
                pass_on(server, client)
            sending.join()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until either side ends."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_0_11_a_create_whose_answer_was_lost_is_retried_by_the_sdk_into_one_batch(still: Served) -> None:
    wanted: Any = [{"custom_id": "a", "params": {"model": "m", "max_tokens": 1, "messages": HELLO}}]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = threading.Thread(target=lose_first_answer, args=(listener, still.port))
        proxy.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with anthropic.Anthropic(base_url=url, api_key="k") as client:
            made = client.messages.batches.create(requests=wanted)
        proxy.join()
    assert [one["id"] for one in still.call("GET", "/v1/messages/batches").json()["data"]] == [made.id]


def curl(*arguments: str | Path, stdin: bytes = b"") -> tuple[str, bytes]:
    """Run curl as the documentation's recipes do, and return the head of the last answer and its body."""
    head = ["-H", "x-api-key: k", "-H", "anthropic-version: 2023-06-01"]
    command = ["curl", "--silent", "--show-error", "--include", *head, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=60)
    *heads, body = done.stdout.split(b"\r\n\r\n", done.stdout.count(b"HTTP/1.1 "))
    return heads[-1].decode(), body


def test_0_curl_runs_the_whole_cycle(roomy: Served) -> None:
    batches = f"{roomy.url}/v1/messages/batches"
    _, body = curl("--data-binary", "@-", batches, stdin=requests("a", "b"))
    batch_id = json.loads(body)["id"]
    roomy.finish(batch_id)
    _, body = curl(f"{batches}/{batch_id}")
    head, body = curl(json.loads(body)["results_url"])
    assert "content-type: application/x-jsonl" in head
    assert {json.loads(line)["custom_id"] for line in body.splitlines()} == {"a", "b"}
    _, body = curl("-X", "POST", f"{batches}/{batch_id}/cancel")
    assert json.loads(body)["processing_status"] == "ended"
    _, body = curl("-X", "DELETE", f"{batches}/{batch_id}")
    assert json.loads(body) == {"id": batch_id, "type": "message_batch_deleted"}


def test_1_2_curl_waits_for_100_continue_before_a_large_body(roomy: Served) -> None:
    body = requests(*(f"r{number}" for number in range(100)), system="x" * 20_000)
    arguments = ("-H", "expect: 100-continue", "--expect100-timeout", "60", "--data-binary", "@-")
    head, answered = curl(*arguments, f"{roomy.url}/v1/messages/batches", stdin=body)
    assert head.startswith("HTTP/1.1 200")
    assert json.loads(answered)["request_counts"]["processing"] == 100


def test_0_curl_sees_that_a_download_broke_off(roomy: Served) -> None:
    names = [f"r{number}" for number in range(96)]
    batch_id = roomy.create(*names)
    roomy.finish(batch_id, dict.fromkeys(names, "x" * 30_000))
    batch = roomy.batch(batch_id)
    (*_, last) = roomy.run(roomy.store.blocks(batch.workspace, batch_id, None, 100))
    segment = roomy.data / "objects" / last.key
    with segment.open("r+b") as file:
        file.truncate(last.offset + last.length - 10)
    with pytest.raises(subprocess.CalledProcessError) as broken:
        curl(f"{roomy.url}/v1/messages/batches/{batch_id}/results")
    assert broken.value.returncode == 18, "curl's code for a transfer that is only a part of the file"
