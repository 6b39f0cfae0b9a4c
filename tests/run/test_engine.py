"""The embedded engine: a real llama.cpp on a tiny model, under `lowtide run` and `lowtide serve`, killed on the way."""

import importlib.util
import json
import os
import random
import signal
from pathlib import Path

import pytest

from lowtide.app.engine import check_engine
from lowtide.domain.errors import SettingsError
from support.runs import QUICK, Start, length, results, write_prompts
from support.serving import Served, until
from support.tiny_gguf import write_model

EXAMPLES = Path(__file__).parents[2] / "examples/conversations.jsonl"
TOKENS = 24


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny-1.gguf")


def test_what_no_engine_can_load_is_told_in_a_sentence(
    tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        check_engine(tmp_path / "away.gguf")
    (tmp_path / "other").write_bytes(b"GGML")
    with pytest.raises(SettingsError, match="is no GGUF model"):
        check_engine(tmp_path / "other")
    assert check_engine(gguf) == gguf
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'lowtide\[gguf\]'"):
        check_engine(gguf)


def test_a_damaged_model_ends_the_run_with_2(start: Start, gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(gguf.read_bytes()[:5000])
    write_prompts(tmp_path / "in.jsonl", ["hello"])
    run = start("in.jsonl", "--gguf", "cut.gguf", "--model", "m", "--max-tokens", "4")
    assert run.status() == 2
    assert f"llama.cpp cannot load {tmp_path / 'cut.gguf'}" in run.said


def test_examples_on_a_model_file_run_through_a_kill_at_a_random_moment(
    start: Start, gguf: Path, tmp_path: Path
) -> None:
    items = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    short = [{**item, "params": {**item["params"], "max_tokens": TOKENS}} for item in items]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(item) + "\n" for item in short), encoding="utf-8")
    flags = ("in.jsonl", "--gguf", str(gguf), "--order", "finish")
    out = tmp_path / "in.results.jsonl"
    run = start(*flags)
    enough = random.randint(1, len(items) * 3 // 4)
    until(lambda: length(out) >= enough)
    run.kill()
    again = start(*flags)
    assert again.status() == 0, again.said
    assert sorted(results(out)) == sorted((item["custom_id"], "succeeded") for item in items)
    message = json.loads(out.read_text(encoding="utf-8").splitlines()[0])["result"]["message"]
    assert message["usage"]["output_tokens"] == TOKENS
    told = [line for line in again.said.splitlines() if "made again" in line]
    print(f"killed after {enough} of {len(items)} results; {''.join(told) or 'no repeated upstream call is known'}")


def test_a_server_on_a_model_file_lists_it_and_outlives_the_engines_death(gguf: Path, tmp_path: Path) -> None:
    served = Served(tmp_path / "data", "--gguf", str(gguf), **QUICK)
    try:
        until(lambda: any(line["event"] == "engine.loaded" for line in served.lines()))
        models = json.loads(served.call("GET", "/v1/models")[1])["data"]
        assert [model["id"] for model in models] == ["tiny-1"]
        count = {"model": "tiny-1", "messages": [{"role": "user", "content": "hi"}]}
        assert json.loads(served.call("POST", "/v1/messages/count_tokens", count)[1])["input_tokens"] > 0
        os.kill(served.pids("engine")[0], signal.SIGKILL)
        batch = served.create(20)
        assert until(lambda: served.ended(batch))["succeeded"] == 20
        assert len(served.pids("engine")) == 2
        assert served.stop() == 0
    finally:
        served.process.kill()
        served.process.wait()
