"""The rows of the lake: all of them in order, the newest, or those that are still to come."""

import asyncio
import functools
import heapq
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from clearpane.contract.lake import Place, hours_between, parse_key
from clearpane.contract.records import Row
from clearpane.store import NotFound, Store
from reader import index
from reader.filter import Filter
from reader.lake import LakeError, LakeObject, hours, hours_of, objects, whole_hour

LOOKS_MAX = 3  # at a file that goes each time it was found: one look is enough where upkeep runs as often as it may
FETCHES_MAX = 16  # index files under way at a time
ROWS_SORTED_MAX = 20_000  # rows held to be put in order of time, and those of one file
WIDE_KEPT = 4  # files of many, whole
POLL_S = 1.0

_EPOCH = datetime.fromtimestamp(0, tz=UTC)


async def rows(store: Store, wanted: Filter) -> AsyncIterator[Row]:
    """Every row that `wanted` asks for, oldest first: hour by hour of the lake, within an hour by time of receipt
    (an hour of more than ROWS_SORTED_MAX rows: in stretches of so many). Raises StoreError, LakeError.
    """
    async for hour in hours(store, "index", hours_of(wanted.since, wanted.until)):
        async for batch in _ordered(fetched(store, await objects(store, "index", hour), wanted)):
            for row in batch:
                yield row


async def newest(store: Store, wanted: Filter, rows_max: int) -> list[Row]:
    """The last `rows_max` rows, newest last. Raises StoreError, LakeError.

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

    The first batch may be empty; later ones are not. Each row comes once. Raises StoreError, LakeError.
    """
    first = whole_hour(wanted.since or now) - timedelta(hours=1)
    seen: dict[str, Place] = {}  # by the key of each file already read
    begun = False
    while True:
        polled = hours_between(first, now)
        fresh = [file for hour in polled for file in await objects(store, "index", hour) if file.key not in seen]
        async for batch in _ordered(_unseen(fetched(store, fresh, wanted), seen.values())):
            if batch or not begun:
                yield batch
            begun = True
        first = polled[-1] - timedelta(hours=1)
        seen |= {file.key: file.place for file in fresh}
        seen = {key: place for key, place in seen.items() if place.hour >= first}
        await asyncio.sleep(POLL_S)
        now = datetime.now(UTC)


async def _unseen(batches: AsyncIterator[list[Row]], seen: Iterable[Place]) -> AsyncIterator[list[Row]]:
    """Without the rows that came in a file that was seen: a file of many comes when theirs have been shown."""
    small, wide = set(), []
    for place in seen:
        if place.last is None:
            small.add((place.log, place.start))
        else:
            wide.append(place)

    @functools.cache
    def is_new(key: str | None) -> bool:
        stated = parse_key(key or "")
        return stated is None or ((stated[1].log, stated[1].start) not in small and not any(one.covers(stated[1]) for one in wide))

    async for batch in batches:
        yield [row for row in batch if is_new(row["object"])]


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
    """The rows of each file, in the order of the files. Raises StoreError, LakeError."""
    last: tuple[str, list[Row]] = ("", [])
    async for file, data in contents(store, files):
        if last[0] != file.key:  # else it comes in the place of one file after the other
            last = (file.key, index.rows(file.key, data, wanted))
        yield [row for row in last[1] if file.owns(row)]


async def contents(store: Store, files: list[LakeObject]) -> AsyncIterator[tuple[LakeObject, bytes]]:
    """Each file with its bytes, in order, the bytes of FETCHES_MAX others under way. Raises StoreError, LakeError.

    A file that is gone was put together with others since it was listed: then that one comes, for the rows that it `owns`.
    """
    waiting: list[asyncio.Task[tuple[LakeObject, bytes] | None]] = []
    wide = _Wide(store)
    try:
        for number in range(len(files)):
            waiting += [asyncio.create_task(_get(store, wide, ahead)) for ahead in files[number + len(waiting) : number + FETCHES_MAX]]
            if (found := await waiting.pop(0)) is not None:
                yield found
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _get(store: Store, wide: "_Wide", file: LakeObject) -> tuple[LakeObject, bytes] | None:
    try:
        return file, await store.get(file.key)
    except NotFound:
        return await wide.instead_of(file)


class _Wide:
    """The last files of many that were read in the place of others: the next one that is gone stood most often in one of them too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = asyncio.Lock()
        self._last: deque[tuple[LakeObject, bytes]] = deque(maxlen=WIDE_KEPT)

    async def instead_of(self, file: LakeObject) -> tuple[LakeObject, bytes] | None:
        """None: it was deleted, with its object."""
        async with self._turn:
            for _ in range(LOOKS_MAX):
                try:
                    found = next((one for one in self._last if one[0].place.covers(file.place)), None) or await self._find(file)
                except NotFound:
                    continue  # put together with others again
                return None if found is None else (replace(found[0], only=file.place), found[1])
        raise LakeError(f"{file.key} is gone, and each time also what the lake lists in its place: ask again, or see `clearpane verify`")

    async def _find(self, file: LakeObject) -> tuple[LakeObject, bytes] | None:
        """Raises NotFound, where it was found and is gone again."""
        found = await objects(self._store, "index", file.place.hour)
        wider = next((other for other in found if other.place == file.place or other.place.covers(file.place)), None)
        if wider is None:
            return None
        self._last.append((wider, await self._store.get(wider.key)))
        return self._last[-1]
