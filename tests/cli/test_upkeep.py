"""The lake kept in order: its index made again, put together, its old objects deleted; every reader right before, during and after."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.cli import _main
from clearpane.cli.pruning import carry_out, plan
from clearpane.cli.revision import Revised, revise
from clearpane.cli.upkeep import Step, compact, rebuild, sweep
from clearpane.contract.identifiers import Log, new_request_id, new_spool_id
from clearpane.contract.lake import Place, Pruned, effective, head_key, parse_key
from clearpane.contract.records import Record, Row
from clearpane.store import Store, StoreUnavailable
from consumer.derive import PriceBook, derive, row
from consumer.lake import index as writing
from consumer.lake.chain import Chain, Lake
from consumer.lake.draft import Derivation
from consumer.lake.messages import Message, decode
from consumer.lake.pending import Limits, Pending
from reader import rows
from reader.filter import Filter
from reader.lake import Hours, LakeError
from reader.query import query
from reader.record import find, open_record
from reader.verify import verify

pytestmark = pytest.mark.timeout(240)

NOW = datetime.now(UTC)
OLD = NOW.replace(minute=30) - timedelta(days=30)
KAFKA = Log.of_partition("clearpane.calls", 2).name
BOOK = PriceBook()
DERIVATION = Derivation(derive=lambda found: derive(found, BOOK), row=row)
ALL = Hours()


def born(at: datetime) -> str:
    """An id of a call received then."""
    digits = f"{int(at.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}{new_request_id()[13:]}"


def envelope(at: datetime, attempt: int = 1, request_id: str | None = None) -> dict[str, Any]:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    answer = {"model": "gpt-4o-mini-2024-07-18", "choices": [{"index": 0, "message": {"content": "Far."}}], "usage": usage}
    return {
        "schema": "call.v1",
        "event": "completed",
        "request_id": request_id or born(at),
        "attempt": attempt,
        "caller": {"user_id": "alice", "properties": {"team": "blue"}},
        "target": {"provider": "openai", "upstream": "openai", "operation": "chat", "url": None},
        "request": {"method": "POST", "path": "/v1/chat/completions", "body": '{"model":"gpt-4o-mini"}', "body_encoding": "utf-8"},
        "response": {"status": 200, "end": "complete", "body": orjson.dumps(answer).decode(), "body_encoding": "utf-8", "headers": {}},
        "timing": {"received_at": at.isoformat(timespec="microseconds"), "duration_ms": 5.0},
    }


async def opened(store: Store, log: str) -> Chain:
    return await Chain.open(Lake(store=store, derivation=DERIVATION, limits=Limits(records_max=4, bytes_max=1 << 20)), log)


async def write(store: Store, log: str, envelopes: list[dict[str, Any]], at: datetime) -> None:
    chain = await opened(store, log)
    pending = Pending(end=chain.tail.end)
    for offset, one in enumerate(envelopes, chain.tail.end):
        pending.add(offset, decode(Message(offset, int(at.timestamp() * 1000), orjson.dumps(one))))
    await chain.append(pending)


class World:
    """A lake of two logs over three hours, eight objects an hour, and what every reader must find in it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ids: list[str] = []
        self.spool_log = Log.of_spool(new_spool_id()).name

    async def fill(self) -> "World":
        for hour in range(3):
            at = OLD + timedelta(hours=hour)
            for log in (KAFKA, self.spool_log):
                envelopes = [envelope(at) for _ in range(16)]
                await write(self.store, log, envelopes, at)
                self.ids += [one["request_id"] for one in envelopes]
        return self

    async def files(self) -> dict[str, bytes]:
        return {entry.key: await self.store.get(entry.key) for entry in await self.store.list("index/")}

    async def check(self) -> None:
        """`calls`, `query`, `show` and `verify` agree with what was written."""
        found = [one async for one in rows.rows(self.store, Filter())]
        assert Counter(one["request_id"] for one in found) == Counter(self.ids)
        newest = await rows.newest(self.store, Filter(), 10)
        assert [one["received_at"] for one in newest] == sorted(one["received_at"] for one in found)[-10:]
        with query(self.store, "select count(*), count(distinct request_id), sum(total_tokens) from calls") as answer:
            assert list(answer.rows) == [(len(self.ids), len(self.ids), 15 * len(self.ids))]
        for name in self.ids[:: len(self.ids) // 4]:
            (one,) = await find(self.store, name)
            assert orjson.loads(await open_record(self.store, one))["request_id"] == name
        report = await verify(self.store)
        assert (report.findings, report.records) == ([], len(self.ids))


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await World(Store.open(str(tmp_path / "lake"))).fill()


async def done(steps: AsyncIterator[Step]) -> list[Step]:
    return [step async for step in steps]


async def compacted(store: Store, now: datetime = NOW) -> None:
    await done(compact(store, row, ALL, now=now, apply=True))
    await done(sweep(store, ALL, now=now))


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


class Failing:
    """A store that breaks before its Nth change."""

    def __init__(self, store: Store, changes: int) -> None:
        self._store, self.left = store, changes

    def __getattr__(self, name: str) -> Any:
        if name not in ("put", "delete", "create"):
            return getattr(self._store, name)

        async def change(*arguments: Any) -> None:
            if self.left == 0:
                raise StoreUnavailable("broken off")
            self.left -= 1
            await getattr(self._store, name)(*arguments)

        return change


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


# Retention


def hour(number: int) -> datetime:
    return (OLD + timedelta(hours=number)).replace(minute=0, second=0, microsecond=0)


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


async def test_the_commands(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
