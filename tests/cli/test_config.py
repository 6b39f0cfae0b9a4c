"""`lowtide config` and `lowtide doctor` as a person runs them: what they print, and their exit statuses."""

import json
import tomllib
from pathlib import Path

from support.command import run

FILE = """
port = 9000
[worker]
lease_s = 30.0
[[upstreams]]
url = "http://127.0.0.1:1"
key_env = "BOX_KEY"
aliases = { "claude-*" = "qwen3-8b" }
"""
CANARY = "canary-5f1e"


def test_check_says_in_one_line_that_settings_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text(FILE)
    done = run("config", "check", cwd=tmp_path, BOX_KEY=CANARY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "The settings can be used (lowtide.toml): 1 upstream, data in lowtide-data.\n"


def test_check_refuses_what_a_start_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text(FILE)
    done = run("config", "check", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the environment variable BOX_KEY holds no key" in done.stderr
    (tmp_path / "lowtide.toml").write_text("prot = 9000\n")
    done = run("config", "check", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no setting prot (from lowtide.toml); did you mean port?" in done.stderr


def test_show_is_a_file_that_says_the_same_and_names_each_source(tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text(FILE)
    done = run("config", "show", cwd=tmp_path, BOX_KEY=CANARY, LOWTIDE_WORKERS="3", LOWTIDE_LIMITS__WINDOW_S="60")
    assert (done.returncode, done.stderr) == (0, "")
    assert CANARY not in done.stdout
    lines = {line.split(" = ")[0]: line for line in done.stdout.splitlines() if " = " in line}
    assert lines["port"].endswith("# from lowtide.toml")
    assert lines["workers"].endswith("# from the environment variable LOWTIDE_WORKERS")
    assert lines["window_s"].endswith("# from the environment variable LOWTIDE_LIMITS__WINDOW_S")
    assert lines["host"].endswith("# by default")
    shown = tomllib.loads(done.stdout)
    assert (shown["port"], shown["workers"], shown["worker"]["lease_s"]) == (9000, 3, 30.0)
    assert shown["upstreams"][0]["aliases"] == {"claude-*": "qwen3-8b"}
    (tmp_path / "again.toml").write_text(done.stdout)
    again = run("config", "show", "--config", "again.toml", cwd=tmp_path)
    assert tomllib.loads(again.stdout) == shown


def test_show_for_programs_has_every_setting_with_its_source(tmp_path: Path) -> None:
    done = run("config", "show", "--json", cwd=tmp_path, LOWTIDE_PORT="0")
    shown = {each["name"]: each for each in json.loads(done.stdout)}
    source = "from the environment variable LOWTIDE_PORT"
    assert shown["port"] == {"name": "port", "value": 0, "source": source}
    assert shown["limits.requests_max"]["value"] == 100_000
    assert shown["upstreams"]["value"] == []


def test_the_doctor_fails_with_status_1_and_says_what_to_do(tmp_path: Path) -> None:
    done = run("doctor", "--data", "data", "--upstream", "http://127.0.0.1:1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAIL  upstream 127.0.0.1:1" in done.stdout
    assert "→ Start the server, or correct its url (http://127.0.0.1:1)." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_prints_a_line_of_json_for_each_check(tmp_path: Path) -> None:
    done = run("doctor", "--data", "data", "--json", cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(list(line) == ["level", "subject", "text", "do"] for line in lines)
    assert done.returncode == int(any(line["level"] == "FAIL" for line in lines))


def test_a_wrong_setting_is_told_before_anything_is_looked_at(tmp_path: Path) -> None:
    done = run("doctor", "--upstream", "here", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "The setting upstreams[0].url" in done.stderr
