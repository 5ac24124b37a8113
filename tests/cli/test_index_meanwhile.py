"""Reads of an index that is put together meanwhile, and what `clearpane index` says and waits for."""

import asyncio
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clearpane.cli import _main
from clearpane.cli import index as commands
from clearpane.cli.upkeep import compact, sweep
from clearpane.contract.lake import parse_key
from clearpane.store import NotFound, Store, StoreDenied
from consumer.derive import row
from reader import rows
from reader.filter import Filter
from reader.lake import LakeError
from reader.query import query
from tests.cli.lake import ALL, KAFKA, NOW, OLD, World, compacted, done, envelope, hour, write

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await World(Store.open(str(tmp_path / "lake"))).fill()


async def test_a_file_that_goes_while_it_is_read_is_read_in_the_other(world: World) -> None:
    """Listed before, read after."""
    await done(compact(world.store, row, ALL, now=NOW, apply=True))
    files = [file for hour in range(3) for file in await _small(world.store, OLD + timedelta(hours=hour))]
    await done(sweep(world.store, ALL, now=NOW))
    found = [one async for batch in rows.fetched(world.store, files, Filter()) for one in batch]
    assert Counter(one["request_id"] for one in found) == Counter(world.ids)


async def test_a_file_of_many_is_read_once_for_all_that_it_stands_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "FETCHES_MAX", 4)
    await done(compact(world.store, row, ALL, now=NOW, apply=True))
    files = [file for number in range(3) for file in await _small(world.store, hour(number))]
    await done(sweep(world.store, ALL, now=NOW))
    reads: list[str] = []

    class Watched(Store):
        async def get(self, key: str) -> bytes:
            found = await super().get(key)
            reads.append(key)
            return found

    found = [one async for batch in rows.fetched(Watched(world.store._backend), files, Filter()) for one in batch]
    assert Counter(one["request_id"] for one in found) == Counter(world.ids)
    assert sorted(reads) == sorted(await world.files())


@pytest.mark.parametrize("listed", ["the same", "one of many"])
async def test_a_store_that_lists_what_it_does_not_give_ends_a_read(world: World, listed: str) -> None:
    files = await _small(world.store, hour(0))
    if listed == "one of many":
        await compacted(world.store)

    class Lying(Store):
        async def get(self, key: str) -> bytes:
            raise NotFound(key)

    with pytest.raises(LakeError, match="ask again"):
        [batch async for batch in rows.fetched(Lying(world.store._backend), files, Filter())]


async def test_follow_shows_nothing_again_when_files_are_put_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "POLL_S", 0.02)
    monkeypatch.setattr(rows, "datetime", Clock(OLD + timedelta(hours=2)))
    batches = rows.follow(world.store, Filter(since=OLD), now=OLD + timedelta(hours=2))
    found = [one["request_id"] for one in await anext(batches)]
    for _ in range(2):
        await compacted(world.store)
        envelopes = [envelope(OLD + timedelta(hours=2)) for _ in range(3)]
        await write(world.store, KAFKA, envelopes, OLD + timedelta(hours=2))
        world.ids += [one["request_id"] for one in envelopes]
        found += [one["request_id"] for one in await asyncio.wait_for(anext(batches), 10)]
    assert Counter(found) == Counter(world.ids)
    await batches.aclose()


class Clock:
    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def now(self, zone: Any) -> datetime:
        assert zone
        return self._moment


async def _small(store: Store, hour: datetime) -> list[Any]:
    from reader.lake import LakeObject

    entries = [(entry, parse_key(entry.key)) for entry in await store.list(f"index/dt={hour:%Y-%m-%d}/hour={hour:%H}/")]
    return [LakeObject(key=e.key, size=e.size, place=parsed[1]) for e, parsed in entries if parsed and parsed[1].last is None]


# The commands


@pytest.fixture
def clearpane(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(commands, "GRACE_S_MIN", 0)

    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(_main, [*arguments, "--lake", str(tmp_path / "lake")])
        return code, *capsys.readouterr()

    return run


async def test_rebuild_ends_with_one_where_objects_are_damaged(world: World, clearpane: Any) -> None:
    key = (await world.store.list("calls/"))[3].key
    await world.store.put(key, b"damaged")
    code, out, err = await clearpane("index", "rebuild")
    assert (code, out) == (1, "checked: 24 index files of 24 objects; 0 written, 0 deleted\n")
    assert "1 objects of calls/ are damaged" in err
    assert f"  {key}: " in err
    code, _, err = await clearpane("index", "compact")
    assert (code, key in err) == (0, False)  # its index is whole
    await world.store.delete((await world.store.list("index/"))[0].key)
    code, _, err = await clearpane("index", "compact")
    assert (code, key in err) == (2, True)


async def test_an_hour_that_to_names_is_left_out(world: World, clearpane: Any) -> None:
    first, second = (f"{hour(n):%Y-%m-%dT%H:%MZ}" for n in range(2))
    code, out, _ = await clearpane("index", "rebuild", "--from", first, "--to", second)
    assert (code, out) == (0, "checked: 8 index files of 8 objects; 0 written, 0 deleted\n")
    code, out, _ = await clearpane("index", "rebuild", "--from", first, "--to", second.replace(":00Z", ":01Z"))
    assert (code, out) == (0, "checked: 16 index files of 16 objects; 0 written, 0 deleted\n")


async def test_small_files_stay_for_the_grace_time_though_a_run_before_wrote_the_others(world: World, clearpane: Any) -> None:
    await done(compact(world.store, row, ALL, now=NOW, apply=True))
    began = time.monotonic()
    code, out, _ = await clearpane("index", "compact", "--grace", "1.5")
    assert (code, out.splitlines()[1]) == (0, "swept: 30 index files of 24 objects; 0 written, 24 deleted")
    assert time.monotonic() - began > 1.5


async def test_the_grace_time_has_a_least(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _main(["index", "compact", "--grace", "59"])
    assert (ended.value.code, "needs a number, 60 to 86400" in capsys.readouterr().err) == (2, True)


async def test_a_sweep_that_fails_is_not_a_compaction_that_failed(world: World, clearpane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def delete(self: Store, key: str) -> None:
        raise StoreDenied("403")

    monkeypatch.setattr(Store, "delete", delete)
    code, out, err = await clearpane("index", "compact", "--grace", "0")
    assert (code, "6 written" in out) == (2, True)
    assert "put together, but not swept" in err


async def test_a_query_that_outlasts_the_grace_time_says_to_ask_again(world: World, clearpane: Any) -> None:
    """Its files are listed before they are put together, and read after."""

    class Slow(Store):
        compacted = False

        async def get_range(self, key: str, start: int, length: int) -> bytes:
            if not self.compacted:
                self.compacted = True
                assert (await clearpane("index", "compact", "--grace", "0"))[0] == 0
            return await super().get_range(key, start, length)

    slow, sql = Slow(world.store._backend), "select sum(total_tokens) from calls"
    with pytest.raises(LakeError, match=r"put together with others meanwhile.*ask again"), query(slow, sql) as answer:
        list(answer.rows)
    with query(slow, sql) as answer:
        assert list(answer.rows) == [(15 * len(world.ids),)]
