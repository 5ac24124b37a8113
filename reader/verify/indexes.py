"""The index files that count, found for one object after the other."""

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime

from clearpane.contract.lake import Place, effective
from clearpane.contract.records import Row
from clearpane.store import NotFound, Store
from reader import index
from reader.lake import LakeObject, objects
from reader.verify.content import COMPARED

_HOURS_KEPT = 48  # listings
_FILES_KEPT = 4  # of many objects, with their rows


class Indexes:
    """Not for concurrent use by hours that change: what is not found is looked for once more, in a new listing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hours: OrderedDict[datetime, list[LakeObject]] = OrderedDict()
        self._wide: OrderedDict[str, dict[str, list[Row]]] = OrderedDict()

    async def rows(self, place: Place) -> tuple[str, list[Row]] | None:
        """(key of the file, COMPARED of the object's rows); None where there is none. Raises StoreError, DamagedIndex."""
        for fresh in (False, True):
            file = await self._file(place, fresh=fresh)
            try:
                if file is not None:
                    return file.key, await self._read(file, place)
            except NotFound:
                continue  # put together with others since the hour was listed
        return None

    async def _file(self, place: Place, *, fresh: bool) -> LakeObject | None:
        if fresh or place.hour not in self._hours:
            self._hours[place.hour] = await objects(self._store, "index", place.hour)
            while len(self._hours) > _HOURS_KEPT:
                self._hours.popitem(last=False)
        mine = (one for one in self._hours[place.hour] if one.place.log == place.log)
        return next((one for one in mine if one.place == place or one.place.covers(place)), None)

    async def _read(self, file: LakeObject, place: Place) -> list[Row]:
        if file.place.last is None:
            return await self._rows(file)
        if file.key not in self._wide:
            found: dict[str, list[Row]] = {}
            for row in await self._rows(file):
                found.setdefault(row["object"] or "", []).append(row)
            self._wide[file.key] = found
            while len(self._wide) > _FILES_KEPT:
                self._wide.popitem(last=False)
        return self._wide[file.key].get(place.key("calls"), [])

    async def _rows(self, file: LakeObject) -> list[Row]:
        """All of it is read, as any page may be damaged, and only what is compared is kept."""
        return index.rows(file.key, await self._store.get(file.key), names=COMPARED)


def overlaps(files: Iterable[Place]) -> list[tuple[Place, Place]]:
    """Of the index files that count, those that stand for the same objects. Of two runs of upkeep at once, as none of ours leaves them."""
    found: list[tuple[Place, Place]] = []
    furthest: dict[tuple[str, datetime], Place] = {}
    for file in sorted(effective((one, one) for one in files), key=lambda one: one.start):
        before = furthest.get((file.log, file.hour))
        if before is not None and file.start <= _last(before):
            found.append((before, file))
        if before is None or _last(file) > _last(before):
            furthest[file.log, file.hour] = file
    return found


def _last(file: Place) -> int:
    return file.start if file.last is None else file.last
