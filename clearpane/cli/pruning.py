"""Pruning: whole old objects leave the lake, and the chain stays one that can be verified.

A log loses what it had first, up to a mark that is written before anything is deleted: `pruned/<log>/<end>.json`, created once and
never changed, the furthest counts. It states the digest of the last object that goes, so the first that stays is still shown to
be the next. Heads stay, so a consumer goes on where it was; one that finds no head goes on behind the mark, never below it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from clearpane.contract.lake import Head, Place, Pruned, head_key, hour_prefix, parse_key, pruned_prefix
from clearpane.contract.members import Manifest, NotAnObject, unseal
from clearpane.store import AlreadyExists, NotFound, Store
from reader.lake import Hours, LakeError, hours, objects

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
    before: datetime
    cuts: dict[str, Cut] = field(default_factory=dict)
    marks: dict[str, Pruned] = field(default_factory=dict)


async def plan(store: Store, before: datetime) -> Plan:
    """What stands in hours before `before` (a whole hour, UTC) and has nothing older behind it that stays. Raises StoreError, LakeError."""
    kept = await _first_kept(store, before)
    found = Plan(before)
    async for place, size in _old(store, before):
        if place.start < kept.get(place.log, place.start + 1):
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

    Raises StoreError.
    """
    for mark in made.marks.values():
        try:
            await store.create(mark.mark, mark.to_json())
        except AlreadyExists:
            continue
    for kind in ("index", "calls"):
        async for hour in hours(store, kind, Hours(last=made.before - timedelta(hours=1))):
            for entry in await store.list(hour_prefix(kind, hour)):
                parsed = parse_key(entry.key)
                if parsed is not None and _goes(made, parsed[1]):
                    await store.delete(entry.key)
                    yield entry.key
    for mark in made.marks.values():
        for entry in await store.list(pruned_prefix(mark.log)):
            if entry.key < mark.mark:
                await store.delete(entry.key)


def _goes(made: Plan, place: Place) -> bool:
    mark = made.marks.get(place.log)
    return mark is not None and (place.start if place.last is None else place.last) < mark.end


async def _first_kept(store: Store, before: datetime) -> dict[str, int]:
    """By log, the lowest start among the hours that stay. Hours do not always grow with offsets."""
    found: dict[str, int] = {}
    async for hour in hours(store, "calls", Hours(first=before)):
        for one in await objects(store, "calls", hour):
            found[one.place.log] = min(one.place.start, found.get(one.place.log, one.place.start))
    return found


async def _old(store: Store, before: datetime) -> AsyncIterator[tuple[Place, int]]:
    async for hour in hours(store, "calls", Hours(last=before - timedelta(hours=1))):
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
