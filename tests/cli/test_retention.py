"""Old objects deleted, the chain left sound; the commands, and all of it on S3."""

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clearpane.cli import _main, index
from clearpane.cli.pruning import carry_out, plan
from clearpane.cli.upkeep import rebuild
from clearpane.contract.lake import Pruned, head_key, parse_key
from clearpane.store import Store, StoreUnavailable
from consumer.derive import row
from reader.lake import LakeError
from reader.verify import verify
from tests.cli.lake import ALL, KAFKA, NOW, OLD, Failing, World, compacted, done, envelope, hour, opened, write

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await World(Store.open(str(tmp_path / "lake"))).fill()


async def prune(store: Any, before: datetime) -> list[str]:
    return [key async for key in carry_out(store, await plan(store, before))]


@pytest.mark.parametrize("together", [False, True])
async def test_old_objects_go_and_the_chain_stays_sound(world: World, together: bool) -> None:
    if together:
        await compacted(world.store)
    made = await plan(world.store, hour(1))
    assert {log: (cut.objects, made.marks[log].end) for log, cut in made.cuts.items()} == {KAFKA: (4, 16), world.spool_log: (4, 16)}
    await world.check()
    assert len(await prune(world.store, hour(1))) == (10 if together else 16)
    world.ids = world.ids[32:]
    await world.check()
    report = await verify(world.store)
    assert report.pruned == {KAFKA: 16, world.spool_log: 16}
    # What goes without a mark is still a hole.
    await world.store.delete((await world.store.list("calls/"))[0].key)
    assert not (await verify(world.store)).clean


async def test_a_log_can_go_wholly_and_goes_on_behind(world: World) -> None:
    await prune(world.store, hour(3))
    assert await world.store.list("calls/") == []
    world.ids = []
    assert (await verify(world.store)).clean
    for head_is_lost in (False, True):
        if head_is_lost:
            await world.store.delete(head_key(KAFKA))
        assert (await opened(world.store, KAFKA)).tail.end == 48
    envelopes = [envelope(NOW) for _ in range(6)]
    await write(world.store, KAFKA, envelopes, NOW)
    world.ids = [one["request_id"] for one in envelopes]
    await world.store.delete(head_key(KAFKA))
    assert (await opened(world.store, KAFKA)).tail.end == 54
    assert (await verify(world.store)).findings == []


@pytest.mark.parametrize("gone", ["all", "all but the last"])
async def test_a_head_that_is_older_than_the_mark_is_passed(world: World, gone: str) -> None:
    """A consumer died before it wrote its last heads, and the log had no call for a month."""
    head = json.loads(await world.store.get(head_key(KAFKA)))
    stale = json.dumps({**head, "end": 8, "key": None, "sha256": None}).encode()
    if gone == "all but the last":
        await world.store.put(head_key(KAFKA), stale)
    await prune(world.store, hour(9))
    chain = await opened(world.store, KAFKA)
    await world.store.put(head_key(KAFKA), stale)
    for found in (chain, await opened(world.store, KAFKA)):
        await found.refresh()
        assert found.tail.end == 48
    if gone == "all":
        await world.store.put(head_key(KAFKA), stale)
    envelopes = [envelope(NOW) for _ in range(6)]
    await write(world.store, KAFKA, envelopes, NOW)
    report = await verify(world.store)
    assert (report.findings, report.records) == ([], 6 + (4 if gone == "all but the last" else 0))


async def test_the_last_object_stays_where_no_head_says_that_it_is_the_last(world: World) -> None:
    await world.store.delete(head_key(KAFKA))
    made = await plan(world.store, hour(9))
    assert (made.cuts[KAFKA].kept_newest, made.cuts[KAFKA].objects, made.cuts[world.spool_log].objects) == (True, 11, 12)
    await prune(world.store, hour(9))
    assert [parse_key(entry.key)[1].start for entry in await world.store.list("calls/")] == [44]  # type: ignore[index]
    assert (await verify(world.store)).findings == []


async def test_pruning_broken_off_anywhere_verifies_and_goes_on(world: World) -> None:
    for changes in (1, 2, 5, 9, 9, 9, 9, 99):
        failing: Any = Failing(world.store, changes)
        try:
            await prune(failing, hour(2))
        except StoreUnavailable:
            assert (await verify(world.store)).findings == []
            assert (await opened(world.store, KAFKA)).tail.end == 48
            continue
        break
    world.ids = world.ids[64:]
    await world.check()
    assert len(await world.store.list("pruned/")) == 2


@pytest.mark.parametrize("changes", [2, 5, 8, 20, 30, 44])
async def test_what_a_broken_run_left_goes_with_the_next(world: World, changes: int) -> None:
    """Though the last object, which the head names, went first: nothing of the log is spared for ever, whatever the days say now."""

    class Backwards(Failing):
        async def list(self, prefix: str, **more: Any) -> list[Any]:
            return (await self._store.list(prefix, **more))[:: 1 if prefix.startswith("pruned/") else -1]

    failing: Any = Backwards(world.store, changes)
    with pytest.raises(StoreUnavailable):
        await prune(failing, hour(9))
    assert (await verify(world.store)).findings == []
    assert await prune(world.store, hour(0))
    assert await world.store.list("calls/") == await world.store.list("index/") == []
    world.ids = []
    report = await verify(world.store)
    assert (report.findings, report.pruned) == ([], {KAFKA: 48, world.spool_log: 48})


async def test_an_index_file_across_the_cut_loses_the_rows_of_what_went(world: World) -> None:
    await compacted(world.store)
    await world.store.delete(head_key(KAFKA))  # so its last object stays
    for changes in range(1, 99):
        failing: Any = Failing(world.store, changes)
        try:
            await prune(failing, hour(9))
        except StoreUnavailable:
            assert (await verify(world.store)).findings == []
            continue
        break
    world.ids = world.ids[64 + 12 : 64 + 16]
    await world.check()
    assert await prune(world.store, hour(9)) == []


async def test_a_damaged_index_file_across_the_cut_is_named_and_the_objects_stay(world: World) -> None:
    await compacted(world.store)
    await world.store.delete(head_key(KAFKA))
    file = next(key for key in sorted(await world.files(), reverse=True) if KAFKA in key)
    await world.store.put(file, b"damaged")
    with pytest.raises(LakeError, match=f"{file} is damaged: `clearpane index rebuild`"):
        await prune(world.store, hour(9))
    assert len(await world.store.list("calls/")) == 24
    await done(rebuild(world.store, row, ALL, keep_costs=True, apply=True))
    await prune(world.store, hour(9))
    world.ids = world.ids[64 + 12 : 64 + 16]
    await world.check()


async def test_a_mark_of_before_is_followed_by_a_further_one(world: World) -> None:
    await prune(world.store, hour(1))
    await prune(world.store, hour(2))
    assert (await verify(world.store)).pruned == {KAFKA: 32, world.spool_log: 32}
    await prune(world.store, hour(1))
    assert (await verify(world.store)).findings == []
    assert len(await world.store.list("pruned/")) == 2


async def test_the_object_behind_a_mark_must_be_the_next_one(world: World) -> None:
    await prune(world.store, hour(1))
    mark = Pruned.from_json(await world.store.get((await world.store.list("pruned/k-"))[0].key))
    other = Pruned(log=mark.log, end=mark.end, key=mark.key, sha256="0" * 64, before=mark.before)
    await world.store.put(mark.mark, other.to_json())
    assert [finding.kind for finding in (await verify(world.store)).findings] == ["chain"]
    await world.store.put(mark.mark, b"{}")
    with pytest.raises(LakeError, match="not a mark"):
        await verify(world.store)


# The commands


@pytest.mark.s3
async def test_on_s3(s3_lake: str) -> None:
    world = await World(Store.open(s3_lake)).fill()
    await compacted(world.store)
    assert len(await world.files()) == 6
    await world.check()
    made = await plan(world.store, (OLD + timedelta(hours=1)).replace(minute=0, second=0, microsecond=0))
    assert len([key async for key in carry_out(world.store, made)]) == 10
    world.ids = world.ids[32:]
    await world.check()


async def test_the_commands(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "GRACE_S_MIN", 0)

    async def clearpane(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(_main, [*arguments, "--lake", str(tmp_path / "lake")])
        return code, *capsys.readouterr()

    code, out, err = await clearpane("index", "compact", "--grace", "0")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "looked at: 24 index files of 24 objects; 6 written, 0 deleted"
    code, out, _ = await clearpane("index", "rebuild", "--json")
    assert (code, {json.loads(line)["written"] for line in out.splitlines()}) == (0, {0})
    code, _, err = await clearpane("retention", "--days", "7", "--apply")
    assert (code, "give --days 8 or more" in err) == (1, True)
    code, _, err = await clearpane("retention", "--days", "8", "--kafka-retention-days", "7.2")
    assert (code, "give --days 9 or more" in err) == (1, True)
    await world.check()
    code, out, _ = await clearpane("retention", "--days", "29")
    assert "24 objects of 2 logs; nothing was deleted: --apply does" in out
    await world.check()
    code, out, _ = await clearpane("retention", "--days", "29", "--apply", "--json")
    gone = json.loads(out)
    assert (code, gone["deleted"], [one["objects"] for one in gone["logs"]]) == (0, 30, [12, 12])
    code, out, _ = await clearpane("verify")
    assert (code, out.splitlines()[-1]) == (0, "clean")
    assert f"pruned up to offset 48: {KAFKA}" in out
