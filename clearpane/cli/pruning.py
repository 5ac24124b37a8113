"""Pruning: whole old objects leave the lake, and the chain stays one that can be verified.

A log loses what it had first, up to a mark that is written before anything is deleted: `pruned/<log>/<end>.json`, created once and
never changed, the furthest counts. It states the digest of the last object that goes, so the first that stays is still shown to
be the next. Heads stay, so a consumer goes on where it was; one that finds no head goes on behind the mark, never below it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from clearpane.contract.lake import Head, Place, Pruned, head_key, hour_prefix, parse_key, pruned_prefix
from clearpane.contract.members import Manifest, NotAnObject, unseal
from clearpane.store import AlreadyExists, NotFound, Store
from consumer.lake import index
from reader.lake import DamagedIndex, Hours, LakeError, hours, objects
from reader.pruning import marks

_MANIFEST_BYTES = 64 << 10


@dataclass(slots=True)
class Cut:
    """What one log loses."""

    log: str
    objects: int = 0
    bytes: int = 0
    last: Place | None = None  # the last object that goes, and the one before it
    before_last: Place | None = None
    last_bytes: int = 0
    kept_newest: bool = False

    def add(self, place: Place, size: int) -> None:
        self.objects += 1
        self.bytes += size
        if self.last is None or place.start > self.last.start:
            self.before_last, self.last, self.last_bytes = self.last, place, size
        elif self.before_last is None or place.start > self.before_last.start:
            self.before_last = place

    def spare_newest(self) -> None:
        """The last object of a log stays where no head says that the log ends with it."""
        self.objects, self.bytes = self.objects - 1, self.bytes - self.last_bytes
        self.last, self.kept_newest = self.before_last, True


@dataclass(slots=True)
class Plan:
    """By log. A mark that stands counts as one that is to be set: what is left below it goes, wherever it is."""

    before: datetime
    standing: dict[str, Pruned]
    cuts: dict[str, Cut] = field(default_factory=dict)
    marks: dict[str, Pruned] = field(default_factory=dict)  # of this plan
    left: dict[str, Cut] = field(default_factory=dict)  # what a run that was broken off did not get to

    @property
    def reach(self) -> Hours:
        """Where something may go."""
        return Hours(last=max([self.before, *(mark.before for mark in self.standing.values())]) - timedelta(hours=1))

    def end(self, log: str) -> int:
        """What is below goes."""
        mark = self.marks.get(log) or self.standing.get(log)
        return 0 if mark is None else mark.end


async def plan(store: Store, before: datetime) -> Plan:
    """What stands in hours before `before` (a whole hour, UTC) and has nothing older behind it that stays. Raises StoreError, LakeError."""
    found = Plan(before, await marks(store))
    kept = await _first_kept(store, found)
    async for place, size in _old(store, found):
        if place.start < found.end(place.log):
            found.left.setdefault(place.log, Cut(place.log)).add(place, size)
        elif place.hour < before and place.start < kept.get(place.log, place.start + 1):
            found.cuts.setdefault(place.log, Cut(place.log)).add(place, size)
    for log, cut in sorted(found.cuts.items()):
        if log not in kept and not await _ends_with(store, log, cut.last):
            cut.spare_newest()
        if cut.last is not None and cut.objects:
            manifest = await _manifest(store, cut.last)
            key = cut.last.key("calls")
            found.marks[log] = Pruned(log=log, end=manifest.end, key=key, sha256=manifest.sha256, before=before)
    return found


async def carry_out(store: Store, made: Plan) -> AsyncIterator[str]:
    """Marks first, then index, then objects; each key once it is deleted. The same again finishes what was broken off.

    Raises StoreError, DamagedIndex.
    """
    for mark in made.marks.values():
        try:
            await store.create(mark.mark, mark.to_json())
        except AlreadyExists:
            continue
    for kind in ("index", "calls"):
        async for hour in hours(store, kind, made.reach):
            for entry in await store.list(hour_prefix(kind, hour)):
                parsed = parse_key(entry.key)
                if parsed is not None and await _is_gone(store, parsed[1], made.end(parsed[1].log)):
                    await store.delete(entry.key)
                    yield entry.key
    for mark in {**made.standing, **made.marks}.values():
        for entry in await store.list(pruned_prefix(mark.log)):
            if entry.key < mark.mark:
                await store.delete(entry.key)


async def _is_gone(store: Store, place: Place, end: int) -> bool:
    """Whether nothing of it stays at this key. An index file across the mark is written again from there on, and goes itself."""
    if place.start >= end:
        return False
    if place.last is not None and place.last >= end:
        try:
            rest = await asyncio.to_thread(index.from_offset, await store.get(place.key("index")), end)
        except ValueError as error:
            raise DamagedIndex(f"{place.key('index')} is damaged: `clearpane index rebuild` makes it again; then this again") from error
        await store.put(replace(place, start=end).key("index"), rest)
    return True


async def _first_kept(store: Store, made: Plan) -> dict[str, int]:
    """By log, the lowest start among the hours that stay. Hours do not always grow with offsets."""
    found: dict[str, int] = {}
    async for hour in hours(store, "calls", Hours(first=made.before)):
        for one in await objects(store, "calls", hour):
            if one.place.start >= made.end(one.place.log):
                found[one.place.log] = min(one.place.start, found.get(one.place.log, one.place.start))
    return found


async def _old(store: Store, made: Plan) -> AsyncIterator[tuple[Place, int]]:
    async for hour in hours(store, "calls", made.reach):
        for one in await objects(store, "calls", hour):
            yield one.place, one.size


async def _ends_with(store: Store, log: str, last: Place | None) -> bool:
    """Whether the head says that the log ends with this object: then a consumer goes on behind it, though it is gone."""
    if last is None:
        return False
    try:
        stated = Head.from_json(await store.get(head_key(log)))
        return stated.end == (await _manifest(store, last)).end and stated.key == last.key("calls")
    except (NotFound, ValueError):
        return False


async def _manifest(store: Store, place: Place) -> Manifest:
    key = place.key("calls")
    try:
        manifest, _ = unseal(await store.get_range(key, 0, _MANIFEST_BYTES))
    except NotAnObject as error:
        raise LakeError(f"{key} is damaged ({error}): nothing was deleted; `clearpane verify` says more") from error
    if (manifest.log, manifest.start) != (place.log, place.start):
        raise LakeError(f"{key} states another place: nothing was deleted; `clearpane verify` says more")
    return manifest
