"""Repricing a lake: the cost columns of its index by another price book. `calls/` is only read: the recorded cost stays there.

A row that was repriced shows the newest cost; `cost_recorded` and `price_version_recorded` show the one it was written with.
Each file of the index is replaced whole, and one that is right already is left alone: it can be broken off and begun again.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from clearpane.contract.members import NotAnObject
from clearpane.contract.records import Record, Row
from clearpane.store import NotFound, Store
from consumer.derive import repricing
from consumer.lake import index as writing
from reader import index as reading
from reader.filter import Filter
from reader.lake import LakeObject, hours, hours_of, objects

# A consumer that is still at work on an object may write its index after us.
SETTLED = timedelta(minutes=1)

Price = Callable[[Record], Row]
_OLD = {"cost_recorded": "cost_total", "price_version_recorded": "price_version"}


@dataclass(frozen=True, slots=True)
class Revised:
    """One row, before and after; the same where its cost is."""

    before: Row
    after: Row

    @property
    def changed(self) -> bool:
        return self.before is not self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """An index file that was passed over: it is too young, or its object is gone."""

    key: str
    rows: int


async def revise(store: Store, wanted: Filter, price: Price, *, now: datetime, apply: bool) -> AsyncIterator[list[Revised] | Unsettled]:
    """File by file, what `wanted` asks for; with `apply` a file is written before it is yielded.

    Raises StoreError, DamagedIndex, NotAnObject.
    """
    async for hour in hours(store, "index", hours_of(wanted.since, wanted.until)):
        for file in await objects(store, "index", hour):
            found = await _revise_file(store, file, wanted, price, now, apply=apply)
            if found is not None:
                yield found


async def _revise_file(
    store: Store, file: LakeObject, wanted: Filter, price: Price, now: datetime, *, apply: bool
) -> list[Revised] | Unsettled | None:
    data = await store.get(file.key)
    chosen = {row["offset"] for row in reading.rows(file.key, data, wanted)}
    if not chosen:
        return None
    rows = reading.rows(file.key, data)
    if any(row["ingested_at"] is not None and now - row["ingested_at"] < SETTLED for row in rows):
        return Unsettled(key=file.key, rows=len(chosen))
    by_object: defaultdict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if row["offset"] in chosen:
            by_object[row["object"]][row["offset"]] = row
    revised: dict[int, Revised] = {}
    for key, known in by_object.items():
        try:
            content = await store.get(key)
        except NotFound:
            return Unsettled(key=file.key, rows=len(chosen))
        try:
            revised |= await asyncio.to_thread(_revised, content, known, price, now)
        except NotAnObject as error:
            raise NotAnObject(f"{key} is damaged ({error}): `clearpane verify` says more") from error
    if apply and any(each.changed for each in revised.values()):
        made = [revised[row["offset"]].after if row["offset"] in revised else row for row in rows]
        await store.put(file.key, await asyncio.to_thread(writing.parquet, made))
    return list(revised.values())


def _revised(content: bytes, known: dict[int, Row], price: Price, now: datetime) -> dict[int, Revised]:
    """By offset, as `known` is. Raises NotAnObject."""
    found = {}
    for _, _, record in writing.records_in(content):
        place = record.get("lake")
        offset = place.get("offset") if isinstance(place, dict) else None
        before = known.get(offset) if isinstance(offset, int) else None
        if before is not None:
            found[before["offset"]] = Revised(before, _row(before, record, price, now))
    return found


def _row(before: Row, record: Record, price: Price, now: datetime) -> Row:
    """The row itself where its cost is right already."""
    new, old = _stored(price(record)), _stored(repricing.recorded(record))
    if all(before[name] == value for name, value in new.items()):
        return before
    if new == old:  # back to what it was written with
        return {**before, **new, **dict.fromkeys(_OLD), "repriced_at": None}
    return {**before, **new, **{name: old[source] for name, source in _OLD.items()}, "repriced_at": now.astimezone(UTC)}


def _stored(columns: Row) -> dict[str, Any]:
    """As the index holds them: 18 places."""
    return {name: writing.stored(name, value) for name, value in columns.items()}
