"""`lowtide run` as a person uses it: what it prints, what it writes, what its exit status says, and what a kill costs."""

import json
import signal
from pathlib import Path

from support.runs import Model, Start, length, results, write_prompts
from support.serving import until

FILL = ("--model", "m", "--max-tokens", "7")


def params(prompt: str, **members: object) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": prompt}], **members}).encode()


def test_bare_params_from_standard_input_are_filled_in_and_answered_in_their_order(
    start: Start, model: Model, tmp_path: Path
) -> None:
    model.let_go.set()
    (tmp_path / "system.txt").write_text("Be brief.\n", encoding="utf-8")
    given = b"\n".join(
        [params("one"), b"", params("two", max_tokens=3, system="Mine."), params("three", model="other")]
    )
    flags = ("-", "--output", "out.jsonl", *FILL, "--system", "@system.txt")
    run = start(*flags, given=given, LOWTIDE_LIMITS__REQUESTS_MAX="2")
    assert run.status() == 0, run.said
    assert results(tmp_path / "out.jsonl") == [(f"line-00000{number}", "succeeded") for number in (1, 3, 4)]
    sent = {
        body["messages"][0]["content"]: (body["model"], body["max_tokens"], body["system"]) for body in model.bodies
    }
    assert sent == {"one": ("m", 7, "Be brief."), "two": ("m", 3, "Mine."), "three": ("other", 7, "Be brief.")}
    assert "3 requests in" in run.said
    assert "Tokens: 3 in, 3 out" in run.said

    again = start(*flags, given=given)
    assert again.status() == 0
    assert "This run is finished and out.jsonl holds its results; nothing is done." in again.said
    other = start(*flags, given=given.replace(b"one", b"ONE"))
    assert other.status() == 2
    assert "is not what the run in out.jsonl.lowtide began with" in other.said
    assert start(*flags, "--system", "Else.", given=given).status() == 2
    assert model.calls == 3


def test_bad_lines_are_named_before_anything_is_sent(start: Start, model: Model, tmp_path: Path) -> None:
    model.let_go.set()
    good = {"custom_id": "a", "params": json.loads(params("x", model="m", max_tokens=1))}
    lines = [json.dumps(good).encode(), b"no", json.dumps(good).encode(), params("y", max_tokens=1)]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    run = start("in.jsonl")
    assert run.status() == 2
    told = run.said.splitlines()
    assert told[0] == "lowtide: Nothing was sent: 3 problems in in.jsonl."
    assert told[1].startswith("line 2: not a JSON object")
    assert told[2] == "line 3: custom_id a is already that of line 1"
    assert told[3] == "line 4: model: Field required (give it in the line or with --model)"
    assert model.calls == 0
    assert not (tmp_path / "in.results.jsonl").exists()


def test_a_killed_run_goes_on_and_redoes_only_what_was_in_flight(start: Start, model: Model, tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", [f"prompt {number}" for number in range(40)])
    flags = ("in.jsonl", "--order", "finish", "--in-flight", "4", *FILL)
    out = tmp_path / "in.results.jsonl"
    run = start(*flags, LOWTIDE_LIMITS__REQUESTS_MAX="16")
    until(lambda: model.calls == 4)
    model.let_pass(20)
    until(lambda: length(out) >= 16)
    run.kill()
    assert run.status() == -9
    model.let_go.set()
    again = start(*flags, LOWTIDE_LIMITS__REQUESTS_MAX="16")
    assert again.status() == 0, again.said
    assert sorted(results(out)) == sorted((f"p{number}", "succeeded") for number in range(40))
    print(f"repeated upstream calls: {model.repeated}")
    assert model.repeated <= 8


def test_ctrl_c_lets_what_is_in_flight_finish_and_says_how_to_go_on(start: Start, model: Model, tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", [f"prompt {number}" for number in range(12)])
    flags = ("in.jsonl", "--output", "out.jsonl", "--in-flight", "3", *FILL)
    run = start(*flags)
    until(lambda: model.calls == 3)
    run.process.send_signal(signal.SIGINT)
    until(lambda: "Stopping" in run.said)
    model.let_go.set()
    assert run.status() == 130
    assert "Run the same command again to go on." in run.said
    assert not (tmp_path / "out.jsonl").exists()
    assert start(*flags).status() == 0
    assert results(tmp_path / "out.jsonl") == [(f"p{number}", "succeeded") for number in range(12)]
    assert model.repeated == 0


def test_what_failed_is_told_by_kind_and_run_again_when_asked(start: Start, model: Model, tmp_path: Path) -> None:
    model.let_go.set()
    write_prompts(tmp_path / "in.jsonl", ["refuse this" if number % 5 == 2 else "fine" for number in range(20)])
    out = tmp_path / "out.jsonl"
    flags = ("in.jsonl", "--output", "out.jsonl", *FILL)
    run = start(*flags)
    assert run.status() == 1
    assert "4  invalid_request_error: No such thing  (as in line 3)" in run.said
    assert [number for number, (_, outcome) in enumerate(results(out)) if outcome == "errored"] == [2, 7, 12, 17]
    nothing = start(*flags)
    assert nothing.status() == 1
    assert "4 requests did not succeed; --retry-failed runs them again." in nothing.said
    assert model.calls == 20
    model.refusing = False
    again = start(*flags, "--retry-failed")
    assert again.status() == 0, again.said
    assert results(out) == [(f"p{number}", "succeeded") for number in range(20)]
    assert model.calls == 24
    out.unlink()
    finish = start(*flags, "--order", "finish")
    assert finish.status() == 0, finish.said
    assert sorted(results(out)) == sorted((f"p{number}", "succeeded") for number in range(20))
    assert model.calls == 24


def test_a_create_body_runs_and_an_output_of_something_else_is_kept(start: Start, model: Model, tmp_path: Path) -> None:
    model.let_go.set()
    items = [{"custom_id": f"r{n}", "params": json.loads(params(f"{n}", model="m", max_tokens=1))} for n in range(3)]
    (tmp_path / "body.json").write_text(json.dumps({"requests": items}, indent=2), encoding="utf-8")
    (tmp_path / "precious.jsonl").write_text("mine\n", encoding="utf-8")
    refused = start("body.json", "--output", "precious.jsonl")
    assert refused.status() == 2
    assert "precious.jsonl exists and is not the output of a run" in refused.said
    assert (tmp_path / "precious.jsonl").read_text(encoding="utf-8") == "mine\n"
    assert start("body.json").status() == 0
    assert results(tmp_path / "body.results.jsonl") == [(f"r{number}", "succeeded") for number in range(3)]


def test_two_runs_of_one_output_do_not_meet(start: Start, model: Model, tmp_path: Path) -> None:
    write_prompts(tmp_path / "in.jsonl", ["one"])
    first = start("in.jsonl", *FILL)
    until(lambda: model.calls == 1)
    second = start("in.jsonl", *FILL)
    assert second.status() == 2
    assert f"Another `lowtide run` (process {first.process.pid}) uses" in second.said
    model.let_go.set()
    assert first.status() == 0
