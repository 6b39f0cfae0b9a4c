"""Settings come from four places in a fixed order, and a bad one is told in one sentence."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lowtide.app import compose, reference
from lowtide.app.load import OTHER_VARIABLES, load
from lowtide.app.names import names, walk
from lowtide.app.orders import Orders
from lowtide.app.settings import Settings
from lowtide.dispatch.settings import WorkerSettings
from lowtide.domain.errors import SettingsError
from lowtide.domain.limits import Limits
from lowtide.upkeep.loops import UpkeepIntervals

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/settings.md"


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("LOWTIDE_"):
            monkeypatch.delenv(name)


def told(flags: dict[str, Any] | None = None, file: str | None = None) -> str:
    """Return the sentence that these settings get."""
    if file is not None:
        Path("lowtide.toml").write_text(file, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(flags or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_anything_the_defaults_hold() -> None:
    assert load({}) == Settings()


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lowtide.toml").write_text('port = 1\nhost = "::1"\nworkers = 3\n', encoding="utf-8")
    assert load({}).port == 1
    monkeypatch.setenv("LOWTIDE_PORT", "2")
    monkeypatch.setenv("LOWTIDE_WORKERS", "4")
    assert load({}).port == 2
    settings = load({"port": 3})
    assert (settings.port, settings.workers, settings.host, settings.data) == (3, 4, "::1", Path("lowtide-data"))


def test_tables_merge_name_by_name_across_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lowtide.toml").write_text("[limits]\nrequests_max = 10\nwindow_s = 60\n", encoding="utf-8")
    monkeypatch.setenv("LOWTIDE_LIMITS__WINDOW_S", "30")
    limits = load({}).limits
    assert (limits.requests_max, limits.window_s, limits.retention_s) == (10, 30, 2_505_600)


def test_upstreams_on_the_command_line_replace_those_of_the_file() -> None:
    Path("lowtide.toml").write_text('[[upstreams]]\nurl = "http://a"\n', encoding="utf-8")
    settings = load({"upstreams": [{"url": "http://b:1/v1/"}, {"url": "http://c/x/v1/messages"}]})
    assert [upstream.url for upstream in settings.upstreams] == ["http://b:1", "http://c/x"]
    assert [upstream.title for upstream in settings.upstreams] == ["b:1", "c"]


def test_upstreams_can_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_UPSTREAMS", '[{"url": "http://a", "aliases": {"claude-*": "small"}}]')
    assert load({}).upstreams[0].aliases == {"claude-*": "small"}


def test_a_variable_that_holds_a_key_may_begin_as_ours_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_UPSTREAM_KEY", "secret")
    load({"upstreams": [{"url": "http://a", "key_env": "LOWTIDE_UPSTREAM_KEY"}]})


def test_the_file_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("lowtide.toml").write_text("port = 1\n", encoding="utf-8")
    (tmp_path / "other.toml").write_text("port = 2\n", encoding="utf-8")
    (tmp_path / "third.toml").write_text("port = 3\n", encoding="utf-8")
    monkeypatch.setenv("LOWTIDE_CONFIG", "other.toml")
    assert load({}).port == 2
    assert load({}, Path("third.toml")).port == 3


BAD_FILES = [
    ('port = "eighty"', 'The setting port is "eighty" (from lowtide.toml), but it should be a whole number.'),
    ("port = 70000", "The setting port is 70000 (from lowtide.toml), but it should be less than or equal to 65535."),
    ("prot = 1", "There is no setting prot (from lowtide.toml); did you mean port?"),
    ("zzzzzz = 1", "There is no setting zzzzzz (from lowtide.toml); docs/settings.md has them all."),
    (
        "[limits]\nrequest_max = 1",
        "There is no setting limits.request_max (from lowtide.toml); did you mean limits.requests_max?",
    ),
    ("limits = 3", "The setting limits is 3 (from lowtide.toml), but it should be a table of settings."),
    ('[[upstreams]]\nname = "x"', "The setting upstreams[0].url is missing (from lowtide.toml)."),
    (
        '[[upstreams]]\nurl = "localhost:8000"',
        (
            'The setting upstreams[0].url is "localhost:8000" (from lowtide.toml), but it should be a URL such as '
            "http://127.0.0.1:8000."
        ),
    ),
    (
        '[[upstreams]]\nurl = "http://me:hunter2@host"',
        (
            "The setting upstreams[0].url is a URL with credentials (from lowtide.toml), but it should be a URL without "
            "credentials and query (name a key by key_env or key_file)."
        ),
    ),
    (
        '[[upstreams]]\nurl = "http://h"\nkey_env = "sk-ant-hunter2"',
        (
            "The setting upstreams[0].key_env is not usable as it is (from lowtide.toml), but it should be the name of an "
            "environment variable (not the key itself)."
        ),
    ),
    (
        '[[upstreams]]\nurl = "http://h"\nkey = "hunter2"',
        "There is no setting upstreams[0].key (from lowtide.toml); did you mean upstreams.key_env?",
    ),
    (
        '[[upstreams]]\nurl = "http://h"\nkey_env = "A"\nkey_file = "b"',
        (
            "The setting upstreams[0] is not usable as it is (from lowtide.toml), but it should be a table with key_env or "
            "key_file, not both."
        ),
    ),
    (
        '[[upstreams]]\nurl = "http://h"\n[[upstreams]]\nurl = "http://h"',
        (
            "The setting upstreams is not usable as it is (from lowtide.toml), but it should be upstreams with names of "
            "their own (two have the same)."
        ),
    ),
    (
        '[[upstreams]]\nurl = "http://h"\naliases = { "a" = 3 }',
        "The setting upstreams[0].aliases.a is 3 (from lowtide.toml), but it should be text.",
    ),
    (
        '[[upstreams]]\nurl = "http://h"\nfetches_urls = "maybe"',
        'The setting upstreams[0].fetches_urls is "maybe" (from lowtide.toml), but it should be true or false.',
    ),
    (
        'trusted_proxies = ["nowhere"]',
        (
            'The setting trusted_proxies[0] is "nowhere" (from lowtide.toml), but it should be an address or network such '
            "as 10.0.0.0/8."
        ),
    ),
    (
        '[log]\nlevel = "loud"',
        "The setting log.level is \"loud\" (from lowtide.toml), but it should be 'debug', 'info', 'warning' or 'error'.",
    ),
    ("port = ", "The file lowtide.toml is not valid TOML: Invalid value (at end of document)."),
]


@pytest.mark.parametrize(("file", "sentence"), BAD_FILES)
def test_a_bad_setting_in_the_file_is_one_sentence(file: str, sentence: str) -> None:
    assert told(file=file) == sentence
    assert "hunter2" not in sentence


BAD_VARIABLES = [
    (
        ("LOWTIDE_PORT", "eighty"),
        'The setting port is "eighty" (from the environment variable LOWTIDE_PORT), but it should be a whole number.',
    ),
    (
        ("LOWTIDE_WORKER__TRIES_MAX", "0"),
        (
            'The setting worker.tries_max is "0" (from the environment variable LOWTIDE_WORKER__TRIES_MAX), but it should be '
            "greater than or equal to 1."
        ),
    ),
    (
        ("LOWTIDE_PROT", "1"),
        "There is no setting prot (from the environment variable LOWTIDE_PROT); did you mean port?",
    ),
    (
        ("LOWTIDE_LIMITS__REQUEST_MAX", "1"),
        (
            "There is no setting limits.request_max (from the environment variable LOWTIDE_LIMITS__REQUEST_MAX); "
            "did you mean limits.requests_max?"
        ),
    ),
    (
        ("LOWTIDE_LIMITS", "many"),
        "The environment variable LOWTIDE_LIMITS names a table of settings; set LOWTIDE_LIMITS__… for one of them.",
    ),
    (
        ("LOWTIDE_TRUSTED_PROXIES", "10.0.0.1"),
        (
            "The environment variable LOWTIDE_TRUSTED_PROXIES is not valid JSON; it should be a list such as "
            "'[\"10.0.0.0/8\"]'."
        ),
    ),
    (("LOWTIDE_CONFIG", "away.toml"), "There is no file away.toml, which LOWTIDE_CONFIG names."),
]


@pytest.mark.parametrize(("variable", "sentence"), BAD_VARIABLES)
def test_a_bad_variable_is_one_sentence(
    variable: tuple[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    assert told() == sentence


def test_a_bad_flag_is_one_sentence() -> None:
    assert told({"port": 70000}) == (
        "The setting port is 70000 (from the flag --port), but it should be less than or equal to 65535."
    )
    assert told({"upstreams": [{"url": "x"}]}) == (
        'The setting upstreams[0].url is "x" (from the flag --upstream), but it should be a URL such as '
        "http://127.0.0.1:8000."
    )


def test_a_config_file_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(SettingsError, match=r"^There is no file away.toml, which --config names.$"):
        load({}, Path("away.toml"))


def test_a_key_comes_from_the_environment_or_a_file_and_its_absence_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def config(**given: str) -> compose.UpstreamConfig:
        return compose.upstream_config(load({"upstreams": [{"url": "http://h", **given}]}).upstreams[0])

    monkeypatch.setenv("KEY_OF_H", "hunter2")
    (tmp_path / "key").write_text("hunter3\n", encoding="utf-8")
    assert config(key_env="KEY_OF_H").key == "hunter2"
    assert config(key_file="key").key == "hunter3"
    assert "hunter2" not in repr(config(key_env="KEY_OF_H"))
    with pytest.raises(SettingsError, match="NO_SUCH_KEY"):
        config(key_env="NO_SUCH_KEY")
    with pytest.raises(SettingsError, match="away"):
        config(key_file="away")


def test_orders_carry_the_settings_whole_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_H", "hunter2")
    settings = load({"upstreams": [{"url": "http://h", "key_env": "KEY_OF_H", "aliases": {"*": "m"}}], "port": 0})
    line = Orders(name="api-1", settings=settings, listener=7).line()
    assert Orders.model_validate_json(line).settings == settings
    assert b"hunter2" not in line


def test_the_settings_of_a_child_come_from_its_orders_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Orders(name="api-1", settings=Settings()).line()
    monkeypatch.setenv("LOWTIDE_PORT", "1")
    assert Orders.model_validate_json(line).settings == Settings()


def test_every_figure_of_the_parts_is_a_setting_with_their_default() -> None:
    settings = Settings()
    assert compose.limits_of(settings) == Limits()
    assert compose.worker_settings(settings) == WorkerSettings()
    assert UpkeepIntervals(**settings.upkeep.model_dump()) == UpkeepIntervals()
    assert {field.name for field in dataclasses.fields(UpkeepIntervals)} == set(type(settings.upkeep).model_fields)


def test_every_setting_says_what_it_does_and_its_unit() -> None:
    for name, field in walk():
        assert field.description, name
        assert field.description.endswith("."), name
        if field.annotation in {int, float} and name not in {"port", "workers"}:
            assert name.rpartition("_")[2] in {"s", "max", "min", "concurrent"} or name == "intake.concurrent", name


def test_the_page_of_settings_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    generated = next(line for line in text.splitlines() if line.startswith("<!--"))
    assert text == reference.page(generated + "\n")


def test_the_page_names_every_setting_its_default_and_every_variable() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for (name, field), dotted in zip(walk(), names(), strict=True):
        assert name == dotted
        row = f"| `{name.rpartition('.')[2]}` | {reference.shown(field)} | {field.description} |"
        assert row in text, name
    for variable in OTHER_VARIABLES:
        assert f"| `{variable}` |" in text, variable


def test_the_example_on_the_page_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    example = PAGE.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    Path("lowtide.toml").write_text(example, encoding="utf-8")
    settings = load({})
    assert [upstream.title for upstream in settings.upstreams] == ["127.0.0.1:8000", "api.anthropic.com"]
    assert json.loads(settings.model_dump_json())["limits"]["requests_max"] == 500_000
