"""The rows of the lake: all of them in order, the newest, or those that are still to come."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from clearpane.contract.lake import hours_between
from clearpane.contract.records import Row
from clearpane.store import NotFound, Store
from reader import index
from reader.filter import Filter
from reader.lake import LakeObject, hours, hours_of, objects, whole_hour

FETCHES_MAX = 16  # index files under way at a time
ROWS_SORTED_MAX = 20_000  # rows held to be put in order of time, and those of one file
POLL_S = 1.0

_EPOCH = datetime.fromtimestamp(0, tz=UTC)


async def rows(store: Store, wanted: Filter) -> AsyncIterator[Row]:
    """Every row that `wanted` asks for, oldest first: hour by hour of the lake, within an hour by time of receipt
    (an hour of more than ROWS_SORTED_MAX rows: in stretches of so many). Raises StoreError, DamagedIndex.
    """
    async for hour in hours(store, "index", hours_of(wanted.since, wanted.until)):
        async for batch in _ordered(fetched(store, await objects(store, "index", hour), wanted)):
            for row in batch:
                yield row


async def newest(store: Store, wanted: Filter, rows_max: int) -> list[Row]:
    """The last `rows_max` rows, newest last. Raises StoreError, DamagedIndex.

    Looks from the newest hour back, and one hour further than it must: neighbours overlap.
    """
    found: list[Row] = []
    async for hour in hours(store, "index", hours_of(wanted.since, wanted.until), newest_first=True):
        enough = len(found) >= rows_max
        async for batch in fetched(store, await objects(store, "index", hour), wanted):
            found = heapq.nlargest(rows_max, found + batch, key=received_at)
        if enough:
            break
    return found[::-1]


async def follow(store: Store, wanted: Filter, *, now: datetime) -> AsyncIterator[list[Row]]:
    """First the rows of this hour and the last (or since `wanted.since`), then batch by batch what is added, for ever.

    The first batch may be empty; later ones are not. Each row comes once. Raises StoreError, DamagedIndex.
    """
    first = whole_hour(wanted.since or now) - timedelta(hours=1)
    seen: dict[str, datetime] = {}  # the hour of each file already read
    begun = False
    while True:
        polled = hours_between(first, now)
        fresh = [file for hour in polled for file in await objects(store, "index", hour) if file.key not in seen]
        async for batch in _ordered(fetched(store, fresh, wanted)):
            if batch or not begun:
                yield batch
            begun = True
        first = polled[-1] - timedelta(hours=1)
        seen |= {file.key: file.place.hour for file in fresh}
        seen = {key: hour for key, hour in seen.items() if hour >= first}
        await asyncio.sleep(POLL_S)
        now = datetime.now(UTC)


def received_at(row: Row) -> datetime:
    """For ordering: a record that could not be parsed has no time, and comes first."""
    found: datetime | None = row["received_at"]
    return found or _EPOCH


async def _ordered(batches: AsyncIterator[list[Row]]) -> AsyncIterator[list[Row]]:
    """By time, in stretches of about ROWS_SORTED_MAX; one at least, if empty."""
    held: list[Row] = []
    async for batch in batches:
        held += batch
        if len(held) >= ROWS_SORTED_MAX:
            yield sorted(held, key=received_at)
            held = []
    yield sorted(held, key=received_at)


async def fetched(store: Store, files: list[LakeObject], wanted: Filter) -> AsyncIterator[list[Row]]:
    """The rows of each file, in the order of the files."""
    async for file, data in contents(store, files):
        yield [row for row in index.rows(file.key, data, wanted) if file.owns(row)]


async def contents(store: Store, files: list[LakeObject]) -> AsyncIterator[tuple[LakeObject, bytes]]:
    """Each file with its bytes, in order, the bytes of FETCHES_MAX others under way.

    A file that is gone was put together with others since it was listed: then that one comes, for the rows that it `owns`.
    """
    waiting: list[asyncio.Task[tuple[LakeObject, bytes] | None]] = []
    try:
        for number in range(len(files)):
            waiting += [asyncio.create_task(_get(store, ahead)) for ahead in files[number + len(waiting) : number + FETCHES_MAX]]
            if (found := await waiting.pop(0)) is not None:
                yield found
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _get(store: Store, file: LakeObject) -> tuple[LakeObject, bytes] | None:
    try:
        return file, await store.get(file.key)
    except NotFound:
        wider = next((other for other in await objects(store, "index", file.place.hour) if other.place.covers(file.place)), None)
    if wider is None:
        return None  # deleted, with its object
    try:
        return replace(wider, only=file.place), await store.get(wider.key)
    except NotFound:
        return await _get(store, file)
