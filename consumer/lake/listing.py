"""Which objects a log has, by listing: the slow way, taken only where no head and no next key can tell."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from clearpane.contract.lake import Kind, Place, Pruned, hour_prefix, hours_between, parse_key, pruned_prefix
from clearpane.store import Entry, Store
from consumer.lake.patience import certain

LISTS_AT_ONCE = 16
_CLOCK_SLACK = timedelta(hours=1)
# Of an older log it is asked first which days there are at all: the lake may keep a month and the log be of last year.
_HOURS_UNASKED = 48


async def places(store: Store, log: str, kind: Kind, since: datetime | None) -> list[Place]:
    """In the order of the log: every object in an hour from `since` on (None: of the whole lake)."""
    if since is None:
        entries = await certain(lambda: store.list(f"{kind}/"), "list")
        return _of_log(entries, log)
    until = max(datetime.now(UTC), since) + _CLOCK_SLACK
    hours = hours_between(since - _CLOCK_SLACK, until)
    if len(hours) > _HOURS_UNASKED:
        days, _ = await certain(lambda: store.level(f"{kind}/"), "list")
        hours = [hour for hour in hours if f"{kind}/dt={hour:%Y-%m-%d}/" in days]
    return await places_in(store, log, kind, hours)


async def places_in(store: Store, log: str, kind: Kind, hours: Iterable[datetime]) -> list[Place]:
    gate = asyncio.Semaphore(LISTS_AT_ONCE)

    async def one(hour: datetime) -> list[Entry]:
        async with gate:
            return await certain(lambda: store.list(f"{hour_prefix(kind, hour)}{log}-"), "list")

    found = await asyncio.gather(*(one(hour) for hour in hours))
    return _of_log([entry for entries in found for entry in entries], log)


async def pruned(store: Store, log: str) -> Pruned | None:
    """Up to where the log was deleted on purpose: nobody writes below it. Raises ValueError for a mark that is damaged."""
    found = await certain(lambda: store.list(pruned_prefix(log)), "list")
    return Pruned.from_json(await certain(lambda: store.get(found[-1].key), "get")) if found else None


def _of_log(entries: Iterable[Entry], log: str) -> list[Place]:
    parsed = (parse_key(entry.key) for entry in entries)
    return sorted((found[1] for found in parsed if found is not None and found[1].log == log), key=lambda place: place.start)
