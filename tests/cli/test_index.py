"""The index made again, and put together; every reader right before, during and after."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.cli import _main
from clearpane.cli import index as commands
from clearpane.cli.revision import Revised, revise
from clearpane.cli.upkeep import compact, rebuild, sweep
from clearpane.contract.lake import Place, Pruned, effective, head_key, parse_key
from clearpane.contract.records import Record, Row
from clearpane.store import NotFound, Store, StoreDenied, StoreUnavailable
from consumer.derive import row
from consumer.lake import index as writing
from reader import rows
from reader.filter import Filter
from reader.lake import Hours, LakeError
from reader.query import query
from reader.verify import verify
from reader.verify.content import COMPARED
from reader.verify.indexes import Indexes
from tests.cli.lake import ALL, BOOK, KAFKA, NOW, OLD, Failing, World, compacted, done, envelope, hour, opened, write

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await World(Store.open(str(tmp_path / "lake"))).fill()


async def test_an_hour_of_a_log_becomes_one_file(world: World) -> None:
    await world.check()
    small = await world.files()
    assert len(small) == 24
    await done(compact(world.store, row, ALL, now=NOW, apply=False))
    assert await world.files() == small
    steps = await done(compact(world.store, row, ALL, now=NOW, apply=True))
    assert [(step.objects, step.files, step.written) for step in steps] == [(4, 4, 1)] * 6
    assert len(await world.files()) == 30
    await world.check()  # both stand: each record counts once
    await done(sweep(world.store, ALL, now=NOW))
    assert len(await world.files()) == 6
    await world.check()
    await compacted(world.store)
    assert len(await world.files()) == 6


async def test_an_hour_that_is_not_past_is_left_alone(world: World) -> None:
    before = await world.files()
    assert await done(compact(world.store, row, ALL, now=OLD, apply=True)) == []
    assert await world.files() == before


async def test_what_came_late_is_put_to_the_rest(world: World) -> None:
    await compacted(world.store)
    envelopes = [envelope(OLD + timedelta(hours=2)) for _ in range(8)]
    await write(world.store, KAFKA, envelopes, OLD + timedelta(hours=2))
    world.ids += [one["request_id"] for one in envelopes]
    await world.check()
    await compacted(world.store)
    assert len(await world.files()) == 6
    await world.check()


async def test_broken_off_anywhere_it_is_right_and_goes_on(world: World) -> None:
    for changes in (1, 2, 4, 5, 6, 99):
        failing: Any = Failing(world.store, changes)
        try:
            await compacted(failing)
        except StoreUnavailable:
            await world.check()
            continue
        break
    assert len(await world.files()) == 6
    await world.check()


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


@pytest.mark.parametrize("together", [False, True])
async def test_rebuilt_from_calls_alone_it_is_the_same_to_the_byte(world: World, together: bool) -> None:
    if together:
        await compacted(world.store)
    before = await world.files()
    keys = sorted(before)
    await world.store.put(keys[0], b"damaged")
    await world.store.put(keys[1], before[keys[0]])
    if not together:
        await world.store.delete(keys[2])
    orphan = str(Place(log=KAFKA, start=999, hour=parse_key(keys[0])[1].hour).key("index"))  # type: ignore[index]
    await world.store.put(orphan, before[keys[0]])
    steps = await done(rebuild(world.store, row, ALL, keep_costs=True, apply=True))
    assert sum(step.written for step in steps) == (2 if together else 3)
    assert sum(step.deleted for step in steps) == 1
    assert await world.files() == before
    await world.check()


async def test_what_is_written_while_it_is_rebuilt_keeps_its_index(world: World) -> None:
    """A consumer adds an object after every listing of the hour."""
    at = NOW - timedelta(hours=5)
    await write(world.store, KAFKA, [envelope(at)], at)

    class Busy(Store):
        async def list(self, prefix: str, *, after: str | None = None) -> list[Any]:
            found = await super().list(prefix, after=after)
            if prefix.startswith(("calls/", "index/")):
                await write(world.store, KAFKA, [envelope(at)], at)
            return found

    await done(rebuild(Busy(world.store._backend), row, Hours(first=at - timedelta(hours=1)), keep_costs=True, apply=True))
    calls, indexes = [await world.store.list(f"{kind}/") for kind in ("calls", "index")]
    assert len(calls) == 24 + 1 + 3
    assert {parse_key(one.key)[1] for one in indexes} == {parse_key(one.key)[1] for one in calls}  # type: ignore[index]


async def test_a_newer_price_stays_unless_it_is_to_go(world: World) -> None:
    recorded = await world.files()

    def dearer(record: Record) -> Row:
        found = row(record)
        return {**{name: found[name] for name in ("cost_input", "cost_output", "cost_source", "cost_reason", "price_variant")},
                "cost_total": "7", "price_version": "mine"}  # fmt: skip

    await compacted(world.store)
    revised = [one async for each in revise(world.store, Filter(), dearer, now=NOW + timedelta(days=1), apply=True) for one in _all(each)]
    assert len(revised) == len(world.ids)
    await world.store.put((await world.store.list("index/"))[-1].key, b"damaged: these costs are lost, and priced as they were recorded")
    await done(rebuild(world.store, row, ALL, keep_costs=True, apply=True))
    with query(world.store, "select distinct cost_total, price_version, cost_recorded is not null from calls") as answer:
        assert sorted(answer.rows, key=str) == [(Decimal("0.0000045"), BOOK.version, False), (Decimal(7), "mine", True)]
    await world.check()
    await done(rebuild(world.store, row, ALL, keep_costs=False, apply=True))
    assert len(await world.files()) < len(recorded)
    with query(world.store, "select count(*) from calls where repriced_at is not null") as answer:
        assert list(answer.rows) == [(0,)]


def _all(each: Any) -> list[Revised]:
    assert isinstance(each, list)
    return each


async def test_a_second_copy_is_known_by_a_file_of_many(world: World) -> None:
    """The consumer looks copies up in the index, wherever their ids stand, and makes no small files again."""
    at = NOW - timedelta(hours=5)
    envelopes = [envelope(at) for _ in range(12)]
    await write(world.store, KAFKA, envelopes, at)
    await compacted(world.store)
    files = sorted(await world.files())
    await write(world.store, KAFKA, [envelope(at, 2, one["request_id"]) for one in envelopes], at)
    assert sorted(await world.files()) == files
    world.ids += [one["request_id"] for one in envelopes]
    await world.check()


async def test_what_is_found_in_a_file_of_many_gets_no_small_one(world: World) -> None:
    """A log whose head is lost is read again for an hour back."""
    await compacted(world.store)
    before = await world.files()
    await world.store.delete(head_key(KAFKA))
    assert (await opened(world.store, KAFKA)).tail.end == 48
    assert await world.files() == before


async def test_damage_in_a_file_of_many_is_named(world: World) -> None:
    await compacted(world.store)
    first, second, *_ = sorted(await world.files())
    data = await world.store.get(second)
    await world.store.put(first, data)
    kinds = Counter(finding.kind for finding in (await verify(world.store)).findings)
    assert kinds == {"index_differs": 4}
    await world.store.put(first, data[:100])
    found = (await verify(world.store)).findings
    assert {finding.kind for finding in found} == {"index_damaged"}
    assert {finding.object for finding in found} == {first}


async def test_two_files_for_the_same_objects_are_named_and_not_put_together(world: World) -> None:
    await compacted(world.store)
    (wide, data) = next((key, data) for key, data in (await world.files()).items() if KAFKA in key)
    _, place = parse_key(wide)  # type: ignore[misc]
    other = replace(place, start=place.start + 4, last=place.last + 8).key("index")
    await world.store.put(other, data)
    found = (await verify(world.store)).findings
    assert [(finding.kind, finding.object) for finding in found] == [("index_overlap", other)]
    assert wide in found[0].detail
    with pytest.raises(LakeError, match="clearpane verify"):
        await compacted(world.store)
    await world.store.delete(wide)  # either one may go
    await done(rebuild(world.store, row, ALL, keep_costs=True, apply=True))
    await world.check()


async def test_a_damaged_page_is_named_when_files_are_put_together(world: World) -> None:
    key = sorted(await world.files())[2]
    data = bytearray(await world.store.get(key))
    data[4:400] = bytes(396)  # the footer still says how many rows there are
    await world.store.put(key, bytes(data))
    with pytest.raises(LakeError, match=f"{key} is damaged: `clearpane index rebuild`"):
        await compacted(world.store)


@pytest.mark.parametrize("together", [False, True])
async def test_damaged_objects_are_gathered_and_the_rest_is_rebuilt(world: World, together: bool) -> None:
    if together:
        await compacted(world.store)
    before = await world.files()
    calls = [entry.key for entry in await world.store.list("calls/")]
    for key in (calls[0], calls[-1]):
        await world.store.put(key, (await world.store.get(key))[:-40])
    keys = sorted(before)
    await world.store.put(keys[1], b"damaged")
    steps = await done(rebuild(world.store, row, ALL, keep_costs=True, apply=True))
    assert [text.partition(": ")[0] for step in steps for text in step.damaged] == [calls[0], calls[-1]]
    assert await world.files() == before


async def test_verify_names_damage_in_a_column_that_it_does_not_compare(world: World) -> None:
    key = sorted(await world.files())[2]
    data = bytearray(await world.store.get(key))
    column = next(c for c in map(pq.read_metadata(BytesIO(data)).row_group(0).column, range(200)) if c.path_in_schema == "cost_total")
    data[column.dictionary_page_offset : column.dictionary_page_offset + column.total_compressed_size] = bytes(column.total_compressed_size)
    await world.store.put(key, bytes(data))
    assert [(finding.kind, finding.object) for finding in (await verify(world.store)).findings] == [("index_damaged", key)]


@pytest.mark.parametrize("together", [False, True])
async def test_verify_holds_only_the_columns_that_it_compares(world: World, together: bool) -> None:
    if together:
        await compacted(world.store)
    place = parse_key((await world.store.list("calls/"))[0].key)[1]  # type: ignore[index]
    found = await Indexes(world.store).rows(place)
    assert [set(one) for one in found[1]] == [set(COMPARED)] * 4  # type: ignore[index]


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


# Names


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from([KAFKA, "h-" + "0" * 32, "k-a%2db-12-3"]))
def test_a_key_of_many_objects_reads_back(start: int, more: int, log: str) -> None:
    place = Place(log=log, start=start, hour=hour(0), last=start + more)
    assert parse_key(place.key("index")) == ("index", place)
    assert parse_key(place.key("calls")) is None


_places = st.builds(
    lambda log, start, more: Place(log=log, start=start, hour=hour(0), last=None if more is None else start + more),
    st.sampled_from(["k-a-0-0", "k-a-0-1"]), st.integers(0, 12), st.none() | st.integers(0, 12),
)  # fmt: skip


@given(st.sets(_places, max_size=12))
def test_what_counts_stands_for_all_that_there_is(files: set[Place]) -> None:
    def stands_for(places: Any) -> set[tuple[str, int]]:
        return {(one.log, start) for one in places for start in range(one.start, (one.start if one.last is None else one.last) + 1)}

    kept = effective((one, one) for one in files)
    assert stands_for(kept) == stands_for(files)
    assert not [one for one in kept if any(other.covers(one) for other in kept)]


@given(st.binary(max_size=300))
def test_garbage_is_no_mark(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a mark"):
        Pruned.from_json(data)


def test_garbage_is_no_index_file() -> None:
    made: list[Callable[[], Any]] = [lambda: writing.merged([b"x"]), lambda: writing.count(b"x")]
    for one in made:
        with pytest.raises(ValueError, match="not an index file"):
            one()
