"""The engine under a clock that the test turns."""

import pytest

from lowtide.domain.errors import SettingsError
from lowtide.simulate.blocks import BlockPool, block_hashes
from lowtide.simulate.engine import Engine, Phase, Sequence
from lowtide.simulate.settings import EngineSettings

MS = 1_000_000


def settings(**changes: int) -> EngineSettings:
    shape = {
        "seats": 2,
        "step_base_ns": 10 * MS,
        "step_per_sequence_ns": MS,
        "prompt_tokens_per_s": 1_000,
        "step_prompt_tokens_max": 8,
        "block_tokens": 4,
        "blocks": 64,
    }
    return EngineSettings(**(shape | changes))


def sequence(prompt: int = 1, output: int = 3, hashes: tuple[int, ...] = (), every: int = 0) -> Sequence:
    return Sequence(hashes, prompt, output, every)


def run_out(engine: Engine) -> list[tuple[int, Sequence]]:
    finished = []
    while (at := engine.next_ns()) is not None:
        finished += [(at, one) for one in engine.advance(at)]
    return finished


def test_one_token_per_step_after_the_step_that_read_the_prompt() -> None:
    engine = Engine(settings())
    one = sequence(prompt=3, output=4)
    engine.submit(one, 0)
    # base + one sequence + three prompt tokens, then three steps of base + one sequence
    assert run_out(engine) == [((10 + 1 + 3) * MS + 3 * 11 * MS, one)]
    assert one.phase is Phase.DONE
    assert engine.counters.generation_tokens == 4


def test_a_step_takes_longer_the_more_runs_yet_two_are_done_sooner_than_one_after_the_other() -> None:
    alone = Engine(settings())
    alone.submit(sequence(output=50), 0)
    single = run_out(alone)[-1][0]
    both = Engine(settings())
    both.submit(sequence(output=50), 0)
    both.submit(sequence(output=50), 0)
    assert single < run_out(both)[-1][0] < 2 * single


def test_seats_are_taken_in_order_of_arrival_and_never_more_than_there_are() -> None:
    engine = Engine(settings(seats=2))
    queue = [sequence(output=length) for length in (9, 3, 2, 2)]
    for one in queue:
        engine.submit(one, 0)
    assert (engine.running, engine.waiting) == (2, 2)
    order = [one for _, one in run_out(engine)]
    assert order == [queue[1], queue[2], queue[3], queue[0]]
    assert (engine.running, engine.waiting) == (0, 0)


def test_a_step_that_has_begun_takes_no_newcomer() -> None:
    engine = Engine(settings())
    engine.submit(sequence(output=100), 0)
    engine.advance(13 * MS)  # the first step ended at 12 ms
    late = sequence(output=1)
    engine.submit(late, 13 * MS)
    assert late.phase is Phase.WAITING
    engine.advance(22 * MS)
    assert late.phase is Phase.WAITING
    engine.advance(23 * MS)
    assert late.phase is Phase.READING


def test_however_the_time_is_cut_the_outcome_is_the_same() -> None:
    def outcome(step_ns: int) -> list[tuple[int, int]]:
        engine = Engine(settings(seats=3))
        queue = [sequence(prompt=5 + index, output=3 + index * 7 % 11) for index in range(9)]
        ends = []
        for one in queue:
            engine.submit(one, 0)
        now = 0
        while engine.running:
            now += step_ns
            ends += [queue.index(one) for one in engine.advance(now)]
        return [ends, engine.counters.generation_tokens]

    assert outcome(MS) == outcome(7 * MS) == outcome(10_000 * MS)


def test_long_prompts_are_read_in_pieces_first_come_first_served() -> None:
    engine = Engine(settings(step_prompt_tokens_max=8))
    first, second = sequence(prompt=20, output=1), sequence(prompt=2, output=1)
    engine.submit(first, 0)
    engine.submit(second, 0)
    ends = run_out(engine)
    assert [one for _, one in ends] == [first, second]
    assert engine._step == 3


def test_an_equal_prefix_is_found_again_but_one_token_is_always_read() -> None:
    engine = Engine(settings())
    hashes = block_hashes(b"0123456789abcdef" * 2, 16)
    for expected in (0, 4):  # the last block is full, so it is read again
        one = sequence(prompt=8, output=2, hashes=hashes)
        engine.submit(one, engine._now_ns)
        run_out(engine)
        assert one.cached_tokens == expected
    assert (engine.counters.prefix_queries, engine.counters.prefix_hits) == (16, 4)


def test_who_finds_no_room_in_the_blocks_waits_for_it() -> None:
    engine = Engine(settings(seats=8, blocks=4))
    queue = [sequence(prompt=4, output=6) for _ in range(2)]  # three blocks each
    for one in queue:
        engine.submit(one, 0)
    assert (engine.running, engine.waiting) == (1, 1)
    assert engine.memory_used == 0.75
    assert [one for _, one in run_out(engine)] == queue
    assert engine.memory_used == 0


def test_a_report_comes_with_the_first_token_and_then_every_so_many() -> None:
    engine = Engine(settings())
    one = sequence(output=10, every=4)
    engine.submit(one, 0)
    seen = []
    while (at := engine.next_ns()) is not None:
        seen += [reported.written_tokens for reported in engine.advance(at)]
    assert seen == [1, 5, 9, 10]


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.READING, Phase.WRITING])
def test_an_aborted_sequence_gives_everything_back_and_is_never_reported(phase: Phase) -> None:
    engine = Engine(settings(seats=1))
    if phase is Phase.WAITING:
        engine.submit(sequence(output=1), 0)
    gone, next_one = sequence(prompt=9, output=5, hashes=(7,)), sequence(output=2)
    engine.submit(gone, 0)
    engine.submit(next_one, 0)
    if phase is Phase.WRITING:
        while gone.phase is not Phase.WRITING:
            engine.advance(engine.next_ns())
    assert gone.phase is phase
    engine.abort(gone)
    engine.abort(gone)
    reported = [one for _, one in run_out(engine)]
    assert gone not in reported
    assert reported[-1] is next_one
    assert (engine.running, engine.waiting, engine.memory_used, engine.counters.aborted) == (0, 0, 0, 1)


def test_a_sequence_without_output_ends_when_its_prompt_is_read() -> None:
    engine = Engine(settings())
    one = sequence(prompt=3, output=0)
    engine.submit(one, 0)
    assert run_out(engine) == [(14 * MS, one)]
    assert engine.counters.generation_tokens == 0


def test_the_blocks_used_longest_ago_go_first_and_a_prefix_outlives_its_ends() -> None:
    pool = BlockPool(4)
    for hashes in ((1, 2), (3, 4)):
        assert pool.take(hashes, 0)
        pool.give_back(hashes, 0)
    assert pool.take((), 1)
    assert (pool.matching((1, 2)), pool.matching((3, 4))) == (1, 2)
    assert not pool.take((5, 6, 7, 8), 0)
    assert (pool.used, pool.remembered) == (1, 3)


def test_only_full_blocks_have_hashes_and_each_depends_on_all_before() -> None:
    one, other = block_hashes(b"aaaabbbbcc", 4), block_hashes(b"xaaabbbbcc", 4)
    assert len(one) == 2
    assert set(one).isdisjoint(other)
    assert block_hashes(b"aaaabbbbdddd", 4)[:2] == one


def test_an_engine_without_seats_is_refused() -> None:
    with pytest.raises(SettingsError, match="seats"):
        settings(seats=0)
