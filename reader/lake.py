"""Which index files there are, hour by hour, oldest or newest first; never the whole listing at once."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clearpane.contract.lake import Kind, Place, effective, hour_prefix, parse_key
from clearpane.contract.records import Row
from clearpane.settings import Settings
from clearpane.store import Store

# An object's hour is that of its first record's log timestamp, and a later hour begins a new object: a record stands
# in the hour of its receipt or in a later one, as long as it waited in a spool, as long as its stream was.
LATE = timedelta(days=7)
# The clocks of a broker and of a proxy may differ.
EARLY = timedelta(hours=1)


class LakeError(Exception):
    """The lake cannot be read: why, and what to do."""


class NoLake(LakeError):
    """There is no lake to read: what to give."""


class DamagedIndex(LakeError):
    """A file of the index cannot be read: which (`key`), and why. `clearpane index rebuild` makes it again."""

    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeObject:
    key: str
    size: int  # bytes
    place: Place
    only: Place | None = None  # of an index file: it is read in the place of this one

    def owns(self, row: Row) -> bool:
        if self.only is None:
            return True
        stated = parse_key(row["object"] or "")
        if stated is None:
            return False
        return self.only.covers(stated[1]) or self.only.start == stated[1].start


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """The hours [first, last] of the lake to look in; None is open."""

    first: datetime | None = None
    last: datetime | None = None

    def holds(self, hour: datetime) -> bool:
        return (self.first is None or self.first <= hour) and (self.last is None or hour <= self.last)

    def holds_day(self, day: datetime) -> bool:
        return (self.first is None or self.first < day + timedelta(days=1)) and (self.last is None or day <= self.last)


def hours_of(since: datetime | None, until: datetime | None) -> Hours:
    """Where records received in [since, until] can stand."""
    return Hours(first=since and whole_hour(since) - EARLY, last=until and whole_hour(until) + LATE)


def whole_hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def location(settings: Settings) -> str:
    """The lake that the settings name, else the embedded default's. Raises NoLake."""
    lake = settings.lake or str(settings.data / "lake")
    if lake.startswith("s3://") or Path(lake).is_dir():
        return lake
    if settings.lake:
        raise NoLake(f"there is no folder {lake}: give --lake the folder or the s3://bucket/prefix that the consumer writes to")
    raise NoLake(f"no lake given, and there is no {lake}: give --lake DIR or --lake s3://bucket/prefix, or set CLEARPANE_LAKE")


def open_lake(settings: Settings) -> Store:
    """Raises NoLake, StoreDenied."""
    return Store.open(location(settings))


async def hours(store: Store, kind: Kind, within: Hours, *, newest_first: bool = False) -> AsyncIterator[datetime]:
    """The hours that have objects, in order. Raises StoreError."""
    days = [day for name in (await store.level(f"{kind}/"))[0] if (day := _moment(name)) and within.holds_day(day)]
    for day in reversed(days) if newest_first else days:
        names, _ = await store.level(f"{kind}/dt={day:%Y-%m-%d}/")
        found = [hour for name in names if (hour := _moment(name)) and within.holds(hour)]
        for hour in reversed(found) if newest_first else found:
            yield hour


async def objects(store: Store, kind: Kind, hour: datetime) -> list[LakeObject]:
    """Our objects of one hour, by key; of the index only the files that count. Raises StoreError."""
    entries = await store.list(hour_prefix(kind, hour))
    found = [(entry, parse_key(entry.key)) for entry in entries]
    return effective((LakeObject(key=entry.key, size=entry.size, place=parsed[1]), parsed[1]) for entry, parsed in found if parsed)


def _moment(folder: str) -> datetime | None:
    """`calls/dt=2026-11-21/` or `calls/dt=2026-11-21/hour=02/` as a moment; None for folders of others."""
    parts = dict(part.partition("=")[::2] for part in folder.strip("/").split("/")[1:])
    if not set(parts) <= {"dt", "hour"}:
        return None
    try:
        return datetime.fromisoformat(f"{parts['dt']}T{parts.get('hour', '00')}:00:00+00:00")
    except (KeyError, ValueError):
        return None
