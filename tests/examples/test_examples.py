"""The example files are what a batch takes, and as varied as they say."""

import importlib.util
import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
FILES = sorted(EXAMPLES.glob("*.jsonl"))
LEAST = {"moderation": 150, "extraction": 100, "conversations": 30, "images": 12}


@pytest.fixture(scope="module")
def load() -> ModuleType:
    return module("load")


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_there_are_as_many_of_each_kind_as_we_say() -> None:
    lengths = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert set(lengths) == set(LEAST)
    assert all(lengths[name] >= least for name, least in LEAST.items())
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.jsonl` | {length} |" in readme for name, length in lengths.items())
    assert sum(path.stat().st_size for path in FILES) < 1_500_000


def test_each_line_is_one_request_with_what_a_messages_call_needs(load: ModuleType) -> None:
    for made in load.originals():
        assert set(made) == {"custom_id", "params"}
        assert CUSTOM_ID.fullmatch(made["custom_id"])
        params = made["params"]
        assert params["max_tokens"] > 0
        assert params["model"].startswith("claude-")
        assert params["messages"][0]["role"] == params["messages"][-1]["role"] == "user"
        assert "stream" not in params


def test_no_custom_id_and_no_call_comes_twice_however_many_are_wanted(load: ModuleType) -> None:
    many = list(load.examples(2_000))
    assert len(many) == 2_000
    assert len({made["custom_id"] for made in many}) == 2_000
    assert all(CUSTOM_ID.fullmatch(made["custom_id"]) for made in many)
    assert max(Counter(json.dumps(made["params"]) for made in many).values()) == 1


def test_without_a_number_the_files_come_once(load: ModuleType) -> None:
    assert list(load.examples()) == load.originals()
    assert list(islice(load.examples(5_000), 5)) == load.originals()[:5]


def test_the_files_are_what_the_script_writes() -> None:
    script = module("write_examples")
    for make in (script.moderation, script.extraction, script.conversations, script.images):
        lines = (EXAMPLES / f"{make.__name__}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == list(make())


def test_moderation_shares_one_cached_system_prompt(load: ModuleType) -> None:
    systems = [
        json.dumps(made["params"]["system"]) for made in load.originals() if made["custom_id"].startswith("moderation")
    ]
    assert len(set(systems)) == 1
    assert "cache_control" in systems[0]
