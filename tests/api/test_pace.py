"""The rate and the estimate say what is known and no more."""

import pytest

from lowtide.api.pace import eta_s, rate_per_s
from lowtide.domain.times import MINUTE_US, SECOND_US
from lowtide.ports.live import Advance

NOW = 100 * MINUTE_US


def ago(*commits: tuple[float, int]) -> list[Advance]:
    return [Advance(NOW - round(seconds * SECOND_US), results) for seconds, results in commits]


def test_nothing_is_known_of_a_young_batch_without_results() -> None:
    assert rate_per_s([], NOW - SECOND_US, NOW) is None


def test_a_batch_that_brings_nothing_for_long_has_a_rate_of_zero_and_no_estimate() -> None:
    assert rate_per_s([], NOW - 2 * MINUTE_US, NOW) == 0
    assert eta_s(5, 0.0) is None


def test_one_commit_says_nothing_yet() -> None:
    assert rate_per_s(ago((1, 50)), NOW - MINUTE_US, NOW) is None


def test_results_that_came_at_once_say_nothing_yet() -> None:
    assert rate_per_s(ago((0.5, 50), (1, 50)), NOW - MINUTE_US, NOW) is None


def test_the_rate_is_that_of_the_last_minute() -> None:
    assert rate_per_s(ago((1, 10), (5, 20), (10, 99), (200, 10_000)), 0, NOW) == 3.0


def test_slow_models_are_judged_by_ten_minutes() -> None:
    assert rate_per_s(ago((30, 1), (130, 1), (300, 1)), 0, NOW) == pytest.approx(2 / 300)


def test_the_estimate_is_what_is_left_at_this_rate() -> None:
    assert eta_s(300, 3.0) == 100
    assert eta_s(300, None) is None
    assert eta_s(0, None) == 0
