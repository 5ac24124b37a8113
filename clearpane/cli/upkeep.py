"""Upkeep of the index: made anew from calls/, or put together so that an hour of a log is one file and not hundreds.

A file that stands for several objects says so in its name, and makes the files that it covers superfluous from the moment it is
there: readers pass over those, so nothing is counted twice while both stand, and nothing is missing when the small ones go.
It is written whole before any of them is deleted; broken off anywhere, the same command again goes on.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from clearpane.contract.lake import Place, effective, hour_prefix, parse_key
from clearpane.contract.members import NotAnObject
from clearpane.contract.records import Record, Row
from clearpane.store import NotFound, Store
from consumer.derive import repricing
from consumer.lake import index as writing
from reader import index as reading
from reader.lake import DamagedIndex, Hours, LakeError, hours, objects

# Readers hold the rows of a file at once.
ROWS_MAX = 20_000
FETCHES_AT_ONCE = 16
# A reader that follows the newest calls looks at this hour and the last; a log may still grow in them.
SEALED = timedelta(hours=3)

T = TypeVar("T")
RowOf = Callable[[Record], Row]
_REPRICED = (*repricing.COLUMNS, "cost_recorded", "price_version_recorded", "repriced_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was done, or would be, in one hour of one log. Numbers of index files; `objects` of calls/."""

    hour: datetime
    log: str
    objects: int
    files: int  # before
    written: int = 0
    deleted: int = 0
    superfluous: int = 0  # index files for `sweep`, of a run before
    damaged: tuple[str, ...] = ()  # objects that no index can be made of, and why


@dataclass(frozen=True, slots=True)
class _Stretch:
    """An hour of a log: its objects by start, the index files that count, and those that are superfluous."""

    hour: datetime
    log: str
    objects: list[Place]
    files: list[Place]
    superfluous: list[Place]

    def step(self, **done: Any) -> Step:
        return replace(Step(hour=self.hour, log=self.log, objects=len(self.objects), files=len(self.files)), **done)

    def within(self, file: Place) -> list[Place]:
        """The objects that an index file stands for."""
        first = bisect_left(self.objects, file.start, key=_start)
        return self.objects[first : bisect_right(self.objects, _last(file), lo=first, key=_start)]

    @property
    def bare(self) -> list[Place]:
        """Objects without an index."""
        indexed = {one.start for file in self.files for one in self.within(file)}
        return [one for one in self.objects if one.start not in indexed]


async def compact(store: Store, row: RowOf, within: Hours, *, now: datetime, apply: bool) -> AsyncIterator[Step]:
    """Writes what is to be put together; `sweep` then deletes what that made superfluous. Raises StoreError, LakeError, NotAnObject."""
    async for stretch in _stretches(store, _sealed(within, now)):
        units = sorted([*stretch.files, *stretch.bare], key=lambda one: one.start)
        written = 0
        if len(units) > 1:
            async for place, data in _put_together(store, row, stretch, units):
                written += 1
                if apply:
                    await store.put(place.key("index"), data)
        yield stretch.step(written=written, superfluous=len(stretch.superfluous))


async def sweep(store: Store, within: Hours, *, now: datetime) -> AsyncIterator[Step]:
    """Deletes index files that others cover. Raises StoreError."""
    async for stretch in _stretches(store, _sealed(within, now)):
        for place in stretch.superfluous:
            await store.delete(place.key("index"))
        count = len(stretch.superfluous)
        if count:
            yield Step(hour=stretch.hour, log=stretch.log, objects=len(stretch.objects), files=len(stretch.files) + count, deleted=count)


async def rebuild(store: Store, row: RowOf, within: Hours, *, keep_costs: bool, apply: bool) -> AsyncIterator[Step]:
    """Every index file from its objects alone; left is what is right already, and what stands for a damaged object. Raises StoreError.

    `keep_costs`: what `clearpane reprice` wrote stays, as far as the old file can be read.
    """
    async for stretch in _stretches(store, within):
        written, deleted = 0, 0
        damaged: list[str] = []
        for place in [*stretch.files, *stretch.bare]:
            mine = stretch.within(place)
            old = await _get(store, place.key("index"))
            if not mine:
                deleted += 1
                if apply:
                    await store.delete(place.key("index"))
                continue
            try:
                made = await _made(store, row, mine, place, old if keep_costs else None)
            except NotAnObject as error:
                damaged.append(str(error))
                continue
            if made != old:
                written += 1
                if apply:
                    await store.put(place.key("index"), made)
        yield stretch.step(written=written, deleted=deleted, damaged=tuple(damaged))


async def _put_together(store: Store, row: RowOf, stretch: _Stretch, units: list[Place]) -> AsyncIterator[tuple[Place, bytes]]:
    """Neighbours, as many as one file may hold."""
    held: list[tuple[Place, bytes]] = []
    rows = 0
    last = -1
    async for place, data in _contents(store, row, stretch, units):
        if place.start <= last:
            raise LakeError(f"{place.key('index')} and another stand for the same objects: `clearpane verify` says which, and what to do")
        last = _last(place)
        size = await asyncio.to_thread(writing.count, data)
        if held and rows + size > ROWS_MAX:
            if len(held) > 1:
                yield await _merged(held)
            held, rows = [], 0
        held.append((place, data))
        rows += size
    if len(held) > 1:
        yield await _merged(held)


async def _merged(held: list[tuple[Place, bytes]]) -> tuple[Place, bytes]:
    (first, _), (end, _) = held[0], held[-1]
    place = Place(log=first.log, start=first.start, hour=first.hour, last=_last(end))
    try:
        return place, await asyncio.to_thread(writing.merged, [data for _, data in held])
    except ValueError:
        for one, data in held:
            await asyncio.to_thread(_readable, one, writing.merged, [data])
        raise


def _readable(place: Place, read: Callable[[T], object], data: T) -> None:
    """Raises DamagedIndex."""
    try:
        read(data)
    except ValueError as error:
        raise DamagedIndex(f"{place.key('index')} is damaged: `clearpane index rebuild` makes it again") from error


async def _contents(store: Store, row: RowOf, stretch: _Stretch, units: list[Place]) -> AsyncIterator[tuple[Place, bytes]]:
    """The bytes of each unit, in order, some fetched ahead; of an object without an index what it would be."""
    bare = set(stretch.bare)

    async def one(place: Place) -> bytes:
        if place in bare:
            return await _made(store, row, [place], place, None)
        data = await store.get(place.key("index"))
        await asyncio.to_thread(_readable, place, writing.count, data)
        return data

    for begin in range(0, len(units), FETCHES_AT_ONCE):
        some = units[begin : begin + FETCHES_AT_ONCE]
        for place, data in zip(some, await asyncio.gather(*map(one, some)), strict=True):
            yield place, data


async def _made(store: Store, row: RowOf, mine: list[Place], place: Place, old: bytes | None) -> bytes:
    """What the consumer writes for these objects, put together where the file stands for several."""
    costs = _costs(place, old) if old is not None else {}
    files = []
    for one in mine:
        key = one.key("calls")
        files.append(await asyncio.to_thread(_index_of, await store.get(key), key, row, costs))
    return files[0] if place.last is None else await asyncio.to_thread(writing.merged, files)


def _index_of(data: bytes, key: str, row: RowOf, costs: dict[tuple[str, int], Row]) -> bytes:
    """Raises NotAnObject."""

    def with_cost(record: Record) -> Row:
        place = record.get("lake")
        offset = place.get("offset") if isinstance(place, dict) else None
        return {**row(record), **(costs.get((key, offset), {}) if isinstance(offset, int) else {})}

    try:
        return writing.index_of(data, key, with_cost)
    except NotAnObject as error:
        raise NotAnObject(f"{key}: {error}") from error


def _costs(place: Place, old: bytes) -> dict[tuple[str, int], Row]:
    """What `clearpane reprice` wrote, by object and offset; a file that cannot be read has none."""
    try:
        found = reading.rows(place.key("index"), old)
    except DamagedIndex:
        return {}
    return {(one["object"], one["offset"]): {name: one[name] for name in _REPRICED} for one in found if one["repriced_at"] is not None}


async def _stretches(store: Store, within: Hours) -> AsyncIterator[_Stretch]:
    """Hour by hour of calls/ and of index/, log by log."""
    known = [hour async for hour in hours(store, "calls", within)]
    known += [hour async for hour in hours(store, "index", within)]
    for hour in sorted(set(known)):
        # Before the objects: a consumer writes an index behind its object, so the object of each file of these is in what is listed next.
        listed = await store.list(hour_prefix("index", hour))
        # A listing is not of one moment: it may miss an object and hold a later one; a second one has all below the first's last.
        newest = {one.place.log: one.place.start for one in await objects(store, "calls", hour)}
        found: defaultdict[str, list[Place]] = defaultdict(list)
        for one in await objects(store, "calls", hour):
            if one.place.start <= newest.get(one.place.log, -1):
                found[one.place.log].append(one.place)
        files: defaultdict[str, list[Place]] = defaultdict(list)
        for entry in listed:
            if (parsed := parse_key(entry.key)) is not None:
                files[parsed[1].log].append(parsed[1])
        for log in sorted({*found, *files}):
            yield _stretch(hour, log, found[log], files[log])


def _stretch(hour: datetime, log: str, found: list[Place], files: list[Place]) -> _Stretch:
    kept = effective((file, file) for file in files)
    return _Stretch(hour, log, sorted(found, key=_start), kept, sorted(set(files) - set(kept), key=_start))


def _start(place: Place) -> int:
    return place.start


def _last(file: Place) -> int:
    """The start of the last object that an index file stands for."""
    return file.start if file.last is None else file.last


def _sealed(within: Hours, now: datetime) -> Hours:
    last = now - SEALED - timedelta(hours=1)
    return Hours(first=within.first, last=min(last, within.last) if within.last else last)


async def _get(store: Store, key: str) -> bytes | None:
    try:
        return await store.get(key)
    except NotFound:
        return None
