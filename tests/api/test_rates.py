"""The budget of calls: a minute's worth, filling evenly, for each workspace alone."""

import pytest

from lowtide.api.rates import Buckets


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def test_a_minutes_calls_are_granted_at_once_and_the_next_is_told_when() -> None:
    buckets = Buckets(Time())
    taken = [await buckets.take("w", 3) for _ in range(4)]
    assert [one.granted for one in taken] == [True, True, True, False]
    assert [one.remaining for one in taken] == [2, 1, 0, 0]
    assert taken[-1].wait_s == pytest.approx(20)
    assert taken[-1].full_s == pytest.approx(60)
    assert {one.limit for one in taken} == {3}


async def test_calls_come_back_evenly_and_never_more_than_a_minutes() -> None:
    time = Time()
    buckets = Buckets(time)
    for _ in range(60):
        assert (await buckets.take("w", 60)).granted
    assert not (await buckets.take("w", 60)).granted
    time.now_s += 1.0
    assert (await buckets.take("w", 60)).granted
    assert not (await buckets.take("w", 60)).granted
    time.now_s += 3600
    assert (await buckets.take("w", 60)).remaining == 59


async def test_who_waits_as_long_as_told_is_let_in() -> None:
    time = Time()
    buckets = Buckets(time)
    for _ in range(7):
        await buckets.take("w", 7)
    refused = await buckets.take("w", 7)
    time.now_s += refused.wait_s + 1e-9
    assert (await buckets.take("w", 7)).granted


async def test_one_workspace_never_spends_anothers_calls() -> None:
    buckets = Buckets(Time())
    assert (await buckets.take("a", 1)).granted
    assert not (await buckets.take("a", 1)).granted
    assert (await buckets.take("b", 1)).granted


async def test_a_limit_that_is_lowered_counts_at_once() -> None:
    buckets = Buckets(Time())
    await buckets.take("w", 100)
    assert (await buckets.take("w", 2)).remaining == 1
