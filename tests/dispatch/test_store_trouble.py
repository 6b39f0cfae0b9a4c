"""A worker whose store fails under it: no request is lost, sent twice or left with a session that forgot it."""

from collections import Counter

import pytest

from lowtide.domain.errors import StoreFull, StoreUnavailable
from lowtide.domain.outcomes import Counts
from lowtide.ports.upstream import Reply
from support.lab import Lab
from support.running import ScriptedUpstream, ended, message, params, working
from support.trouble import troubled

OPERATIONS = ["open_session", "heartbeat", "backlogs", "open_chunks", "claim", "commit"]


async def good(_: str) -> Reply:
    return message()


def prompts(count: int) -> list[bytes]:
    return [params(f"p{index}") for index in range(count)]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("error", [StoreFull("full"), StoreUnavailable("locked")], ids=["full", "unavailable"])
async def test_an_operation_that_fails_ends_no_worker_and_repeats_no_call(
    lab: Lab, operation: str, error: Exception
) -> None:
    upstream = ScriptedUpstream(good)
    batch = await lab.batches.create(40, params=prompts(40))
    seen, store = troubled(lab, before={operation: [error, error]})
    async with working(seen, upstream):
        done = await ended(lab, batch)
    assert store.before[operation] == []
    assert done.counts == Counts(succeeded=40)
    assert Counter(upstream.prompts) == Counter(f"p{index}" for index in range(40))


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_answer_that_is_lost_leaves_nothing_leased_and_repeats_no_call(lab: Lab, operation: str) -> None:
    upstream = ScriptedUpstream(good)
    batch = await lab.batches.create(40, params=prompts(40))
    seen, store = troubled(lab, after={operation: [StoreUnavailable("lost")] * 2})
    async with working(seen, upstream):
        done = await ended(lab, batch)
    assert store.after[operation] == []
    assert done.counts == Counts(succeeded=40)
    assert Counter(upstream.prompts) == Counter(f"p{index}" for index in range(40))
