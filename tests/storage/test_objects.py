"""The object store: durable, immutable, honest about damage."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from lowtide.domain.errors import ObjectDamaged, ObjectExists, ObjectMissing, StorageError, StoreFull
from lowtide.ports.objects import ObjectRange, ObjectStore, StoredObject
from lowtide.storage import local_objects
from lowtide.storage.local_objects import LocalObjects

KEY = "segments/0123abcd/1"


async def _listed(objects: ObjectStore, prefix: str = "") -> dict[str, int]:
    return {found.key: found.length async for found in objects.list(prefix)}


async def test_what_was_put_is_read_by_range(objects: LocalObjects) -> None:
    await objects.put(KEY, [b"abc", b"", b"defg"])
    assert await objects.read(KEY, 0, 7) == b"abcdefg"
    assert await objects.read(KEY, 2, 3) == b"cde"
    assert await objects.read(KEY, 3, 0) == b""
    ranges = [ObjectRange(KEY, 5, 2), ObjectRange(KEY, 0, 1), ObjectRange(KEY, 5, 2)]
    assert [bytes(it) for it in await objects.read_many(ranges)] == [b"fg", b"a", b"fg"]


async def test_a_missing_and_a_short_object_are_told_apart(objects: LocalObjects) -> None:
    with pytest.raises(ObjectMissing):
        await objects.read(KEY, 0, 1)
    await objects.put(KEY, [b"abc"])
    with pytest.raises(ObjectDamaged):
        await objects.read(KEY, 1, 3)
    with pytest.raises(ObjectMissing):
        await objects.read_many([ObjectRange("segments/x/2", 0, 1)])


async def test_equal_content_on_the_same_key_is_success_and_other_content_is_refused(objects: LocalObjects) -> None:
    await objects.put(KEY, [b"abc"])
    await objects.put(KEY, [b"a", b"bc"])
    for other in (b"abd", b"ab", b"abcd", b""):
        with pytest.raises(ObjectExists):
            await objects.put(KEY, [other])
    assert await objects.read(KEY, 0, 3) == b"abc"
    assert await _listed(objects) == {KEY: 3}


async def test_of_many_puts_at_once_one_gives_the_content(objects: LocalObjects) -> None:
    answers = await asyncio.gather(*(objects.put(KEY, [bytes([n])]) for n in range(8)), return_exceptions=True)
    assert [type(answer) for answer in answers if answer is not None] == [ObjectExists] * 7
    assert len(await _listed(objects)) == 1


async def test_a_file_is_put_and_consumed(objects: LocalObjects, tmp_path: Path) -> None:
    spooled = tmp_path / "spooled"
    for _ in range(2):
        spooled.write_bytes(b"abc")
        await objects.put_file("requests/up", spooled)
        assert not spooled.exists()
    assert await objects.read("requests/up", 0, 3) == b"abc"
    spooled.write_bytes(b"other")
    with pytest.raises(ObjectExists):
        await objects.put_file("requests/up", spooled)


async def test_a_file_of_another_file_system_is_copied(
    objects: LocalObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spooled = tmp_path / "spooled"
    spooled.write_bytes(b"abc")
    link = os.link

    def far(source: Path, target: Path) -> None:
        if source == spooled:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(os, "link", far)
    await objects.put_file("requests/up", spooled)
    assert not spooled.exists()
    assert await objects.read("requests/up", 0, 3) == b"abc"


async def test_delete_is_success_whether_or_not_it_is_there(objects: LocalObjects) -> None:
    await objects.put(KEY, [b"abc"])
    await objects.delete(KEY)
    await objects.delete(KEY)
    with pytest.raises(ObjectMissing):
        await objects.read(KEY, 0, 1)
    await objects.put(KEY, [b"new"])
    assert await objects.read(KEY, 0, 3) == b"new"


async def test_a_listing_yields_what_begins_with_the_prefix(objects: LocalObjects) -> None:
    keys = [f"segments/s{session}/{number}" for session in range(3) for number in range(120)]
    await asyncio.gather(*(objects.put(key, [b"x"]) for key in [*keys, "requests/u"]))
    assert set(await _listed(objects, "segments/")) == set(keys)
    assert set(await _listed(objects, "segments/s1/11")) == {
        "segments/s1/11",
        *(f"segments/s1/11{n}" for n in range(10)),
    }
    assert await _listed(objects, "nothing/") == {}
    assert await _listed(objects, "requests/") == {"requests/u": 1}


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".hidden", "a/.put-1", "a b", "a\n"]
)
async def test_no_key_leads_out_of_the_directory(objects: LocalObjects, tmp_path: Path, key: str) -> None:
    spooled = tmp_path / "spooled"
    spooled.write_bytes(b"x")
    for call in (
        objects.put(key, [b"x"]),
        objects.put_file(key, spooled),
        objects.read(key, 0, 1),
        objects.delete(key),
    ):
        with pytest.raises(ValueError, match="cannot be the key"):
            await call


async def test_content_is_synced_before_its_name_and_its_folders_after(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A power cut between any two of these steps leaves the whole object or none."""
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def note_sync(file: int) -> None:
        target = Path(f"/proc/self/fd/{file}").readlink()
        steps.append("content" if target.name.startswith(".put-") else str(target.relative_to(tmp_path)))
        fsync(file)

    def note_link(source: Path, target: Path) -> None:
        steps.append("name")
        link(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "link", note_link)
    await objects.put(KEY, [b"abc"])
    folder = "objects/segments/0123abcd"
    assert steps == ["objects/segments", "objects", ".", "content", "name", folder]
    steps.clear()
    await objects.put(KEY, [b"abc"])
    assert steps == ["content", "name", f"{folder}/1", folder]


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, StoreFull), (errno.EROFS, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StorageError)],
)
async def test_a_disk_that_takes_no_more_says_so_and_leaves_nothing(
    objects: LocalObjects, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], tmp_path: Path
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", fail)
        with pytest.raises(error):
            await objects.put(KEY, [b"abc"])
        with pytest.raises(error):
            await objects.check()
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
    await objects.put(KEY, [b"abc"])
    await objects.check()


@pytest.mark.parametrize(
    "point", [local_objects.WRITE, local_objects.LINK, local_objects.SYNC_FOLDER], ids=lambda it: it.name
)
@pytest.mark.parametrize("action", ["error-before", "error-after"])
async def test_a_put_that_failed_anywhere_is_repeated(objects: LocalObjects, point: Any, action: str) -> None:
    point.arm(action)
    with pytest.raises(StorageError):
        await objects.put(KEY, [b"abc"])
    await objects.put(KEY, [b"abc"])
    assert await _listed(objects) == {KEY: 3}


async def test_a_listing_removes_what_a_dead_put_left_and_leaves_a_live_one_alone(
    objects: LocalObjects, tmp_path: Path
) -> None:
    await objects.put(KEY, [b"abc"])
    orphan = tmp_path / "objects" / "segments" / "0123abcd" / ".put-dead"
    orphan.write_bytes(b"half")
    with objects._unfinished(orphan.parent) as (_, live):
        assert await _listed(objects, "segments/") == {KEY: 3}
        assert (orphan.exists(), live.exists()) == (False, True)


async def test_a_cancelled_put_comes_to_its_end_first(objects: LocalObjects) -> None:
    putting = asyncio.ensure_future(objects.put(KEY, [b"x" * 1_000_000]))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert [it async for it in objects.list("")] in ([], [StoredObject(KEY, 1_000_000)])
