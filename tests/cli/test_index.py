"""The index made again, and put together; every reader right before, during and after."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.cli.revision import Revised, revise
from clearpane.cli.upkeep import compact, rebuild, sweep
from clearpane.contract.lake import Place, Pruned, effective, head_key, parse_key
from clearpane.contract.records import Record, Row
from clearpane.store import Store, StoreUnavailable
from consumer.derive import row
from consumer.lake import index as writing
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
