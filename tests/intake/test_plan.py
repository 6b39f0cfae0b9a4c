"""The plan: shared prefixes stand together, chunks keep their bounds, nothing is lost or doubled."""

import json
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lowtide.domain.limits import CHUNK_REQUESTS_MAX, CHUNK_REQUESTS_MIN
from lowtide.intake.plan import CHUNK_BYTES_MAX, plan

FEW = st.sampled_from(["a", "b", "c"])


def raw(**params: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(params).encode())


@given(
    st.lists(st.builds(raw, model=FEW | st.none() | st.integers(), system=FEW, tools=FEW | st.just([]), messages=FEW))
)
def test_every_request_is_planned_once_within_the_bounds(params: list[msgspec.Raw]) -> None:
    chunks = list(plan(params))
    assert sorted(position for chunk in chunks for position in chunk.positions) == list(range(len(params)))
    assert all(1 <= len(chunk.positions) <= CHUNK_REQUESTS_MAX for chunk in chunks)
    for chunk in chunks:
        models = {json.loads(bytes(params[position])).get("model") for position in chunk.positions}
        assert {model if isinstance(model, str) else "" for model in models} == {chunk.model}


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=600))
def test_a_group_large_enough_shares_no_chunk_and_fills_its_own(systems: list[str]) -> None:
    chunks = list(plan([raw(model="m", system=system) for system in systems]))
    for chunk in chunks:
        inside = {systems[position] for position in chunk.positions}
        if any(systems.count(system) >= CHUNK_REQUESTS_MIN for system in inside):
            assert len(inside) == 1
            assert len(chunk.positions) >= CHUNK_REQUESTS_MIN


def test_shared_prefixes_stand_together_and_equal_ones_keep_their_order() -> None:
    documents = ["x" * 5000, "y" * 5000, "x" * 1500 + "z" * 3500]
    params = [raw(model="m", system=f"s{n % 2}", messages=documents[n % 3]) for n in range(60)]
    order = [position for chunk in plan(params) for position in chunk.positions]
    seen = [(position % 2, position % 3) for position in order]
    changes = sum(left != right for left, right in pairwise(seen))
    assert changes == len(set(seen)) - 1
    systems = [system for system, _ in seen]
    assert sum(left != right for left, right in pairwise(systems)) == 1
    related = [document in {0, 2} for _, document in seen]
    assert sum(left != right for left, right in pairwise(related)) <= 3
    for combination in set(seen):
        positions = [position for position in order if (position % 2, position % 3) == combination]
        assert positions == sorted(positions)


def test_a_batch_of_one_shape_keeps_the_clients_order() -> None:
    params = [raw(model="m", messages=str(number)) for number in range(1000)]
    chunks = list(plan(params))
    assert [position for chunk in chunks for position in chunk.positions] == list(range(1000))
    assert {len(chunk.positions) for chunk in chunks} == {8}


def test_a_large_batch_has_chunks_of_32() -> None:
    chunks = list(plan([raw(model="m")] * 6400))
    assert {len(chunk.positions) for chunk in chunks} == {32}


def test_small_groups_share_chunks_of_one_model() -> None:
    params = [raw(model=f"m{number % 2}", system=str(number)) for number in range(64)]
    chunks = list(plan(params))
    assert [len(chunk.positions) for chunk in chunks] == [8] * 8
    assert {chunk.model for chunk in chunks} == {"m0", "m1"}
    assert len({chunk.group for chunk in chunks}) == 8


def test_a_chunk_holds_no_more_bytes_than_its_bound_unless_one_request_does() -> None:
    big = raw(model="m", messages="x" * (CHUNK_BYTES_MAX // 3))
    huge = raw(model="m", messages="x" * (CHUNK_BYTES_MAX + 1))
    chunks = list(plan([big] * 8 + [huge] * 2))
    lengths = [[len(memoryview([big, huge][position >= 8])) for position in chunk.positions] for chunk in chunks]
    assert all(sum(inside) <= CHUNK_BYTES_MAX or len(inside) == 1 for inside in lengths)


def test_params_without_a_model_that_could_exist_are_planned_under_an_empty_name() -> None:
    params = [raw(), raw(model=None), raw(model=5), raw(model=["m"]), raw(model="m" * 600), raw(model="")]
    (chunk,) = plan(params)
    assert (chunk.model, chunk.positions) == ("", list(range(6)))


def test_a_model_name_with_escapes_is_read() -> None:
    (chunk,) = plan([msgspec.Raw(b'{"model":"qw\\u0065n"}')])
    assert chunk.model == "qwen"
