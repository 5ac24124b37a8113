"""Reads the lake once, log by log, and holds every object against its neighbours, its index and all others.

Safe beside a consumer that writes: see _known().
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from clearpane.contract.lake import Head, Kind, Place, Pruned, head_key, parse_key
from clearpane.contract.records import Row
from clearpane.store import Entry, NotFound, Store
from reader import index
from reader.lake import DamagedIndex, LakeError, LakeObject
from reader.pruning import marks
from reader.verify.chain import Chain
from reader.verify.content import Content, differences, examine
from reader.verify.indexes import Indexes, overlaps
from reader.verify.ledger import Ledger
from reader.verify.report import Finding, Report

FETCHES_MAX = 4  # objects, each with its index, under way or held at a time
# The index of an object is written right behind it.
IN_FLIGHT = timedelta(minutes=1)
# A consumer that was stopped between the two writes the index when it takes up the log again.
IN_FLIGHT_NEWEST = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Fetched:
    object: LakeObject
    data: bytes | None
    index: tuple[str, list[Row]] | DamagedIndex | None  # key and rows


async def verify(store: Store) -> Report:
    """Raises StoreError when the lake cannot be read, LakeError when it was pruned meanwhile."""
    report = Report()
    heads = await _heads(store, report)
    pruned = await marks(store)
    report.pruned = {log: mark.end for log, mark in sorted(pruned.items())}
    with Ledger() as ledger:
        await _known(store, ledger, report)
        for log in sorted({*ledger.logs(), *heads}):
            await _walk_log(store, ledger, report, Chain(log, heads.get(log), pruned.get(log)))
        await _find_orphans(store, ledger, report, pruned)
    if await marks(store) != pruned:
        raise LakeError("`clearpane retention` deleted objects meanwhile: verify again")
    return report


async def _heads(store: Store, report: Report) -> dict[str, Head]:
    """Read before the objects, so that a head never knows more than the listing that follows it."""
    found = {}
    for entry in await store.list("heads/"):
        log = entry.key.removeprefix("heads/").removesuffix(".json")
        if entry.key != head_key(log):
            report.ignore(entry.key)
            continue
        try:
            found[log] = Head.from_json(await store.get(entry.key))
        except (ValueError, NotFound):
            report.ignore(entry.key)  # a hint that cannot be read says nothing
    return found


async def _known(store: Store, ledger: Ledger, report: Report) -> None:
    """The objects of each log up to its tail.

    A listing is not of one moment: it may miss an object and hold a later one of the same log. What stands below an
    object was there before it, so a second listing surely has all below the tails that the first one saw.
    """
    async for objects in _listed(store, "calls", report):
        ledger.add(objects)
    tails = {log: ledger.newest(log) or 0 for log in ledger.logs()}
    async for objects in _listed(store, "calls", None):
        ledger.add(o for o in objects if o.place.start < tails.get(o.place.log, -1))


async def _listed(store: Store, kind: Kind, report: Report | None) -> AsyncIterator[list[LakeObject]]:
    """Day by day. What is not ours goes to the report."""
    folders, entries = await store.level(f"{kind}/")
    _ours(kind, entries, report)
    for folder in folders:
        yield _ours(kind, await store.list(folder), report)


def _ours(kind: Kind, entries: Iterable[Entry], report: Report | None) -> list[LakeObject]:
    found = []
    for entry in entries:
        parsed = parse_key(entry.key)
        if parsed is not None and parsed[0] == kind:
            found.append(LakeObject(key=entry.key, size=entry.size, place=parsed[1]))
        elif report is not None:
            report.ignore(entry.key)
    return found


async def _walk_log(store: Store, ledger: Ledger, report: Report, chain: Chain) -> None:
    newest = ledger.newest(chain.log)
    report.logs += newest is not None
    pruned = 0 if chain.pruned is None else chain.pruned.end
    # What is left below a mark is to be deleted, by the same command again.
    kept = (one for one in ledger.objects(chain.log) if one.place.start >= pruned)
    async for fetched in _fetched(store, kept):
        if fetched.data is None:
            continue  # gone since it was listed: the chain shows the gap
        content = examine(fetched.object.place, fetched.data)
        report.objects += 1
        report.bytes += len(fetched.data)
        report.records += len(content.records)
        report.add(*content.findings, *chain.follow(content.place, content.manifest), *_duplicates(ledger, content))
        _check_index(report, content, fetched.index, is_newest=content.place.start == newest)
    report.add(*chain.finish())


def _duplicates(ledger: Ledger, content: Content) -> list[Finding]:
    number = ledger.number(content.key)
    found = []
    for record in content.records:
        if record.request_id is not None and (before := ledger.claim(record.request_id, number)):
            detail = f"offset {record.offset}: the same call stands in {before}"
            found.append(Finding(kind="duplicate", detail=detail, log=content.place.log, object=content.key, request_id=record.request_id))
    return found


def _check_index(report: Report, content: Content, found: tuple[str, list[Row]] | DamagedIndex | None, *, is_newest: bool) -> None:
    if found is None and _is_in_flight(content, is_newest):
        report.in_flight.append(content.key)
    elif found is None:
        missing = f"there is no {content.place.key('index')}"
        report.add(Finding(kind="index_missing", detail=missing, log=content.place.log, object=content.key))
    elif isinstance(found, DamagedIndex):
        report.add(Finding(kind="index_damaged", detail=str(found), log=content.place.log, object=found.key))
    else:
        key, rows = found
        report.add(*(Finding(kind="index_differs", detail=d, log=content.place.log, object=key) for d in differences(content, rows)))


def _is_in_flight(content: Content, is_newest: bool) -> bool:
    age = abs(datetime.now(UTC) - content.newest) if content.newest else timedelta.max
    return age < (IN_FLIGHT_NEWEST if is_newest else IN_FLIGHT)


async def _find_orphans(store: Store, ledger: Ledger, report: Report, pruned: Mapping[str, Pruned]) -> None:
    """Read behind the objects: an index whose object is not known may belong to one that was written since."""
    async for files in _listed(store, "index", report):
        report.add(*_overlaps(files))
        for file in files:
            for place in await _stands_for(store, file):
                mark = pruned.get(place.log)
                known = ledger.holds(place) or (mark is not None and place.start < mark.end)
                if not known and await store.size(key := place.key("calls")) is None:
                    report.add(Finding(kind="index_orphan", detail=f"there is no {key}", log=place.log, object=file.key))


def _overlaps(files: list[LakeObject]) -> list[Finding]:
    how = "their rows count twice; delete one of the two, then `clearpane index rebuild`"
    return [
        Finding(
            kind="index_overlap", detail=f"{one.key('index')} stands for objects of it too: {how}", log=two.log, object=two.key("index")
        )
        for one, two in overlaps(file.place for file in files)
    ]


async def _stands_for(store: Store, file: LakeObject) -> list[Place]:
    """The objects that an index file has rows of, or is named for."""
    if file.place.last is None:
        return [file.place]
    try:
        keys = {row["object"] for row in index.columns(file.key, await store.get(file.key), ["object"])}
    except (DamagedIndex, NotFound):
        return []  # said where its objects are looked at, if they are there
    return sorted((parsed[1] for key in keys if (parsed := parse_key(key or ""))), key=lambda place: place.start)


async def _fetched(store: Store, objects: Iterable[LakeObject]) -> AsyncIterator[_Fetched]:
    """In order, FETCHES_MAX under way."""
    remaining, indexes = iter(objects), Indexes(store)
    waiting = [asyncio.create_task(_fetch(store, indexes, one)) for one in islice(remaining, FETCHES_MAX)]
    try:
        while waiting:
            done = await waiting.pop(0)
            waiting += [asyncio.create_task(_fetch(store, indexes, one)) for one in islice(remaining, 1)]
            yield done
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _fetch(store: Store, indexes: Indexes, one: LakeObject) -> _Fetched:
    """The index after the object: it is written after it."""
    data = await _get(store, one.key)
    try:
        return _Fetched(one, data, await indexes.rows(one.place))
    except DamagedIndex as error:
        return _Fetched(one, data, error)


async def _get(store: Store, key: str) -> bytes | None:
    try:
        return await store.get(key)
    except NotFound:
        return None
