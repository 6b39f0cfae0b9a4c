"""Choosing over a real store: who is served first, and that nobody is starved."""

from collections import Counter
from collections.abc import Callable

from lowtide.dispatch.choose import Chooser
from lowtide.domain.times import MINUTE_US
from support.lab import Lab


def everything(_: str) -> bool:
    return True


async def chosen_per_batch(
    lab: Lab, chooser: Chooser, want: int, goes: Callable[[str], bool] = everything, rate: float = 0.0
) -> Counter[int]:
    """Choose, claim, and count the chosen requests by batch key."""
    backlogs = await lab.store.backlogs()
    keys = await chooser.choose(backlogs, want, goes, rate, lab.clock.wall_us())
    session = await lab.store.open_session("chooser", 60)
    claimed = await lab.store.claim(session.id, keys)
    assert len(claimed) == len(keys)
    return Counter(
        {key: sum(one.size for one in claimed if one.batch_key == key) for key in {one.batch_key for one in claimed}}
    )


async def test_enough_chunks_for_what_is_wanted_are_chosen_in_plan_order(lab: Lab) -> None:
    await lab.batches.create(320)
    (backlog,) = await lab.store.backlogs()
    keys = await Chooser(lab.store).choose([backlog], 100, everything, 0.0, lab.clock.wall_us())
    page = await lab.store.open_chunks(backlog.batch_key, 0, 100)
    assert keys == [chunk.key for chunk in page[:4]]


async def test_batches_of_one_workspace_share_and_a_newcomer_does_not_wait(lab: Lab) -> None:
    await lab.batches.create(3200)
    chooser = Chooser(lab.store)
    await chosen_per_batch(lab, chooser, 1600)
    await lab.batches.create(320)
    assert sorted((await chosen_per_batch(lab, chooser, 256)).values()) == [128, 128]


async def test_workspaces_share_by_tokens_served_whatever_the_number_of_their_batches(lab: Lab) -> None:
    for _ in range(3):
        await lab.batches.create(640, workspace="wrkspc_many")
    await lab.batches.create(640, workspace="wrkspc_one")
    backlogs = {each.batch_key: each.workspace for each in await lab.store.backlogs()}
    chosen = await chosen_per_batch(lab, Chooser(lab.store), 384)
    shares: Counter[str] = Counter()
    for key, requests in chosen.items():
        shares[backlogs[key]] += requests
    assert shares["wrkspc_one"] == shares["wrkspc_many"] == 192


async def test_what_is_about_to_run_out_of_time_goes_first(lab: Lab) -> None:
    await lab.batches.create(640)
    await lab.batches.create(640, window_us=MINUTE_US)
    urgent = max(each.batch_key for each in await lab.store.backlogs())
    assert set(await chosen_per_batch(lab, Chooser(lab.store), 320, rate=10.0)) == {urgent}


async def test_batches_that_can_go_nowhere_do_not_stand_before_one_that_can(lab: Lab) -> None:
    for _ in range(10):
        await lab.batches.create(8)
    await lab.batches.create(8, model="other")
    assert sum((await chosen_per_batch(lab, Chooser(lab.store), 64, lambda model: model == "other")).values()) == 8


async def test_no_more_bytes_are_chosen_than_there_is_room_for(lab: Lab) -> None:
    await lab.batches.create(40, params=b"x" * 1000, chunk_size=1)
    (backlog,) = await lab.store.backlogs()
    keys = await Chooser(lab.store).choose([backlog], 40, everything, 0.0, lab.clock.wall_us(), length_max=4500)
    assert len(keys) == 5
