from pathlib import Path
from typing import Any

import pytest

from lowtide.domain.errors import SettingsError
from lowtide.upstreams.config import UpstreamConfig, read_key
from lowtide.upstreams.messages import MessagesUpstream


def config(**settings: Any) -> UpstreamConfig:
    return UpstreamConfig(**{"name": "u", "url": "http://127.0.0.1:8000", **settings})


def test_the_key_is_in_no_text() -> None:
    made = config(key="secret-key", proxy="http://user:secret-key@proxy")
    assert "secret-key" not in f"{made!r} {made}"


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://host"},
        {"url": "host:8000"},
        {"url": "http://"},
        {"url": "http://host/\r\nx"},
        {"url": "http://user:pw@host"},
        {"url": "http://host?x=1"},
        {"url": "http://host:99999"},
        {"key": "two words"},
        {"key": "line\n"},
        {"key": ""},
        {"in_flight_max": 0},
        {"reply_bytes_max": 0},
        {"aliases": (("a", "b*"),)},
        {"aliases": (("a", ""),)},
        {"ca_file": "/no/such/file"},
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="upstream u"):
        config(**settings)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:1", "http://h:1"),
        ("http://h:1/", "http://h:1"),
        ("http://h:1/v1", "http://h:1"),
        ("http://h:1/a/v1/", "http://h:1/a"),
        ("https://h/a", "https://h/a"),
    ],
)
def test_the_address_may_have_a_prefix_and_an_own_v1(url: str, base: str) -> None:
    assert config(url=url).base_url == base


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n", encoding="utf-8")
    assert read_key({"K": " from-env "}, "u", key_env="K", key_file=None) == "from-env"
    assert read_key({}, "u", key_env=None, key_file=str(tmp_path / "key")) == "from-file"
    assert read_key({}, "u", key_env=None, key_file=None) is None


@pytest.mark.parametrize(("key_env", "key_file"), [("K", None), (None, "/no/such/file")])
def test_a_key_that_is_not_there_is_named(key_env: str | None, key_file: str | None) -> None:
    with pytest.raises(SettingsError, match=r"upstream u: the .* holds no key"):
        read_key({}, "u", key_env=key_env, key_file=key_file)


def test_models_are_chosen_by_patterns_and_aliases() -> None:
    upstream = MessagesUpstream(config(models=("qwen*",), aliases=(("claude-haiku-*", "small"), ("claude-*", "big"))))
    assert [upstream.serves(model) for model in ("qwen3", "claude-x", "other", "Qwen3")] == [True, True, False, False]
    params = b'{ "max_tokens":1e2, "model" : "claude-haiku-4" ,"messages":[{"model": "claude-haiku-4"}]}'
    assert upstream.prepare(params, "claude-haiku-4") == params.replace(b'"claude-haiku-4"', b'"small"', 1)
    assert upstream.prepare(b'{"model":"claude-x"}', "claude-x") == b'{"model":"big"}'
    assert upstream.prepare(params, "qwen3") is params


def test_without_patterns_every_model_goes_there() -> None:
    assert config().serves("anything")
