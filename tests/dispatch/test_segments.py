from dataclasses import replace

from lowtide.dispatch.hold import Fresh, Hold
from lowtide.dispatch.segments import BLOCK_LENGTH, build
from lowtide.domain.checksum import checksum
from lowtide.domain.outcomes import Outcome, Usage
from lowtide.ports.metadata import Claimed

CLAIMED = Claimed(1, 3, 7, "msgbatch_1", "w", 0, "m", {}, "requests/a", 0, 10, 5, 0, 32, 0, 0, 0, b"", 0)


def hold(key: int, batch_key: int = 7) -> Hold:
    return Hold.of(replace(CLAIMED, key=key, batch_key=batch_key), deadline_s=0.0)


def fresh(*lines: bytes) -> list[Fresh]:
    return [Fresh(index, line, Usage(1, 2)) for index, line in enumerate(lines)]


def test_the_lines_of_one_batch_stand_together_and_each_block_proves_itself() -> None:
    segment = build([(hold(5, 9), fresh(b"z\n")), (hold(2), fresh(b"b\n", b"bb\n")), (hold(1), fresh(b"a\n"))])
    data = b"".join(segment.pieces)
    assert data == b"a\nb\nbb\nz\n"
    assert [(block.batch_key, block.offset, block.length, block.lines) for block in segment.blocks] == [
        (7, 0, 7, 3),
        (9, 7, 2, 1),
    ]
    for block in segment.blocks:
        assert checksum(data[block.offset : block.offset + block.length]) == block.checksum
    for part, lines in zip(segment.parts, (b"a\n", b"b\nbb\n", b"z\n"), strict=True):
        assert data[part.offset : part.offset + part.length] == lines
    assert segment.length == len(data)


def test_a_block_is_cut_once_it_is_long_enough_and_a_part_never_spans_two() -> None:
    line = b"x" * (BLOCK_LENGTH // 2) + b"\n"
    segment = build([(hold(key), fresh(line)) for key in range(5)])
    assert [block.lines for block in segment.blocks] == [2, 2, 1]
    for part in segment.parts:
        assert any(
            block.offset <= part.offset and part.offset + part.length <= block.offset + block.length
            for block in segment.blocks
        )


def test_usage_is_counted_for_succeeded_results_alone() -> None:
    segment = build([(hold(1), [Fresh(0, b"a\n", Usage(3, 4)), Fresh(5, b"b\n", None)])])
    (part,) = segment.parts
    assert (part.bits, part.succeeded, part.errored, part.usage) == (0b100001, 1, 1, Usage(3, 4))


def test_a_closing_is_recorded_only_once_nothing_is_in_flight() -> None:
    closing = hold(1)
    closing.closing = Outcome.CANCELED
    assert build([(closing, [])]).parts[0].closing is Outcome.CANCELED
    assert build([(closing, [])]).length == 0
    closing.flying.add(None)  # type: ignore[arg-type]
    assert build([(closing, [])]).parts[0].closing is None
