"""The chain: how records enter the lake exactly once, whoever else writes, whatever is lost on the way.

An object covers its log's offsets [start, end). It is created only if its key is free, and its key follows
from the object before it and from the log; so of all writers at one place exactly one wins, and each other
one adopts the winner's object and goes on at its end. The position is the chain's, never Kafka's.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from clearpane.contract.lake import Place, Pruned, head_key, parse_key, pruned_prefix
from clearpane.contract.records import Row
from clearpane.store import AlreadyExists, NotFound, Store, StoreUnavailable
from consumer import metrics
from consumer.lake import index, listing
from consumer.lake.draft import Derivation, Draft, compose, row_of
from consumer.lake.inspection import check_follows, inspect, manifest_of
from consumer.lake.ledger import READS_AT_ONCE, Ledger
from consumer.lake.patience import certain
from consumer.lake.pending import Cut, Limits, Pending
from consumer.lake.tail import REWRITTEN_KEPT_MS, ChainBroken, Tail

log = logging.getLogger(__name__)

UNDECIDED_PAUSE_S = 0.2
Stored = Callable[[Row], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lake:
    """What every chain of a process shares."""

    store: Store
    derivation: Derivation
    limits: Limits
    stored: Stored | None = None  # called with each row that this process stored
    reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READS_AT_ONCE))  # of index files, at once


class Chain:
    """One log's chain. Not for concurrent use: its owner calls one method at a time."""

    def __init__(self, lake: Lake, tail: Tail, since: datetime | None = None) -> None:
        self.tail = tail
        self._since = since
        self._lake = lake
        self._store = lake.store
        self._ledger = Ledger(lake.store, lake.derivation, lake.reads)
        self._writer = secrets.token_hex(8)
        self._drafts = 0

    @staticmethod
    async def open(lake: Lake, name: str, *, genesis: Callable[[], Awaitable[int]] | None = None, since: datetime | None = None) -> "Chain":
        """At the tail that the head tells, or else a listing from `since` on.

        `genesis` names the first offset of a log that has no chain yet (None: 0, and no head is made before
        the first object: a spool's sequence always begins there).
        """
        tail = await _read_head(lake.store, name)
        mark = await _pruned(lake.store, name)
        if tail is not None:
            return Chain(lake, _behind(tail, mark), since)
        found = await listing.places(lake.store, name, "calls", since)
        if mark is not None:
            found = [place for place in found if place.start >= mark.end]
        if found:
            return await _recovered(lake, name, found, since)
        if mark is not None:
            return Chain(lake, Tail(log=name, genesis=mark.end, end=mark.end, key=mark.key, sha256=mark.sha256), since)
        if genesis is None:
            return Chain(lake, Tail(log=name, genesis=0, end=0), since)
        return Chain(lake, await _begun(lake.store, name, await genesis()), since)

    async def append(self, pending: Pending) -> None:
        """Until all that is pending stands in the lake, written by us or by another, or was a copy.

        Can be cancelled at any point: what is in doubt then is found by the next writer. Raises ChainBroken.
        """
        while (cut := pending.cut(self._lake.limits)) is not None:
            fresh = await self._ledger.fresh(cut.candidates, self.tail)
            if not fresh and not cut.needed:
                metrics.copies_dropped.inc(len(cut.candidates))
                pending.drop(cut)
                continue
            self._drafts += 1
            nonce = f"{self._writer}-{self._drafts}"
            draft = await asyncio.to_thread(compose, self.tail, cut, fresh, nonce, self._lake.derivation)
            if await self._create(draft):
                await self._settle(draft, cut)
            pending.advance(self.tail.end)

    async def refresh(self) -> None:
        """Go forward to where the chain ends now: by its head, then by listing. Raises ChainBroken."""
        head = await _read_head(self._store, self.tail.log)
        if head is not None and head.end > self.tail.end:
            self._ledger.forget()
            self.tail = head
        self.tail = _behind(self.tail, await _pruned(self._store, self.tail.log))
        found = await listing.places(self._store, self.tail.log, "calls", self._since or _hour_of(self.tail))
        await self._adopt_all([place for place in found if place.start >= self.tail.end])

    async def _create(self, draft: Draft) -> bool:
        """True: the object is ours. False: another's, adopted."""
        key = draft.place.key("calls")
        while True:
            if await certain(lambda: _claim(self._store, key, draft.data), "create"):
                return True
            try:
                found = await certain(lambda: self._store.get(key), "get")
            except NotFound:
                # The key was taken by a write that then failed: nothing is decided.
                await asyncio.sleep(UNDECIDED_PAUSE_S)
                continue
            if manifest_of(found, key).nonce == draft.manifest.nonce:
                metrics.answers_lost.inc()
                return True
            await self._adopt(draft.place, found)
            return False

    async def _settle(self, draft: Draft, cut: Cut) -> None:
        """Ours: index, then head, so that a head never points past a missing index."""
        began = time.monotonic()
        key = draft.place.key("calls")
        self._ledger.note(draft.place, draft.written.ids)
        self.tail = self.tail.after(draft.manifest, key, draft.written)
        metrics.objects_written.inc()
        metrics.object_bytes.inc(len(draft.data))
        metrics.records_stored.inc(draft.manifest.count - draft.poison)
        metrics.poison_stored.inc(draft.poison)
        metrics.copies_dropped.inc(len(cut.candidates) - draft.manifest.count)
        await certain(lambda: self._store.put(draft.place.key("index"), draft.index), "index")
        await self._write_head()
        metrics.write_seconds.observe(time.monotonic() - began)
        if self._lake.stored is not None:
            for row in draft.rows:
                self._lake.stored(row)

    async def _write_head(self) -> None:
        data = self.tail.to_json()
        await certain(lambda: self._store.put(head_key(self.tail.log), data), "head")

    async def _adopt_all(self, places: list[Place]) -> None:
        """Each in turn, and then the head, which was behind."""
        for place in places:
            if place.start < self.tail.end:
                raise ChainBroken(f"{place.key('calls')} overlaps the object before it; `clearpane verify` shows where")
            if place.start > self.tail.end:
                raise ChainBroken(f"no object of {self.tail.log} starts at {self.tail.end}, but {place.key('calls')} exists")
            await self._adopt(place, await _object(self._store, place))
        if places:
            await self._write_head()

    async def _adopt(self, place: Place, data: bytes) -> None:
        key = place.key("calls")
        manifest, written = await asyncio.to_thread(inspect, data, key)
        check_follows(manifest, key, self.tail)
        if not await _is_indexed(self._store, place):
            made = await asyncio.to_thread(index.index_of, data, key, lambda record: row_of(record, self._lake.derivation))
            await certain(lambda: self._store.put(place.key("index"), made), "index")
        self._ledger.note(place, written.ids)
        self.tail = self.tail.after(manifest, key, written)
        metrics.objects_adopted.inc()
        log.info("adopted %s: another writer was first; going on at %d", key, self.tail.end)


async def _claim(store: Store, key: str, data: bytes) -> bool:
    """True: created. False: the key is taken, perhaps by our own earlier try. Raises StoreUnavailable."""
    try:
        await store.create(key, data)
    except AlreadyExists:
        return False
    except StoreUnavailable:
        # A server may refuse a large body by hanging up on it: the same request would be in doubt for ever.
        if await store.size(key) is None:
            raise
        return False
    return True


async def _is_indexed(store: Store, place: Place) -> bool:
    """By a file of its own, or by one of many."""
    if await certain(lambda: store.size(place.key("index")), "get") is not None:
        return True
    return any(one.covers(place) for one in await listing.places_in(store, place.log, "index", [place.hour]))


async def _object(store: Store, place: Place) -> bytes:
    return await certain(lambda: store.get(place.key("calls")), "get")


async def _read_head(store: Store, name: str) -> Tail | None:
    try:
        data = await certain(lambda: store.get(head_key(name)), "get")
    except NotFound:
        return None
    try:
        tail = Tail.from_json(data)
    except ValueError as error:
        raise ChainBroken(f"{head_key(name)}: {error}; delete it, and the next start finds the tail by listing") from error
    if tail.log != name:
        raise ChainBroken(f"{head_key(name)} is the head of {tail.log}: delete it")
    return tail


async def _pruned(store: Store, name: str) -> Pruned | None:
    try:
        return await listing.pruned(store, name)
    except ValueError as error:
        raise ChainBroken(f"{pruned_prefix(name)}: {error}: restore it from a version of the bucket") from error


def _behind(tail: Tail, mark: Pruned | None) -> Tail:
    """A head may be older than what was pruned: nobody writes below a mark."""
    if mark is None or mark.end <= tail.end:
        return tail
    return replace(tail, end=mark.end, key=mark.key, sha256=mark.sha256)


async def _begun(store: Store, name: str, genesis: int) -> Tail:
    """The head of a new chain: two consumers that start while the log's own start moves begin one chain."""
    tail = Tail(log=name, genesis=genesis, end=genesis)
    try:
        await certain(lambda: store.create(head_key(name), tail.to_json()), "head")
    except AlreadyExists:
        return await _read_head(store, name) or tail
    return tail


async def _recovered(lake: Lake, name: str, found: list[Place], since: datetime | None) -> Chain:
    """From a lake without head: what was written in the last hour is read again, for the second copies in it."""
    log.warning("%s is missing: found %d objects of the log by listing", head_key(name), len(found))
    first, previous_sha256 = await _an_hour_back(lake.store, found)
    before = next((place for place in reversed(found) if place.start < first.start), None)
    key = before.key("calls") if before else None
    chain = Chain(lake, Tail(log=name, genesis=found[0].start, end=first.start, key=key, sha256=previous_sha256), since)
    await chain._adopt_all([place for place in found if place.start >= first.start])  # noqa: SLF001
    return chain


async def _an_hour_back(store: Store, found: list[Place]) -> tuple[Place, str | None]:
    """The object to begin reading at, and the digest of the one before it."""
    newest_ms = 0
    for place in reversed(found):
        key = place.key("calls")
        manifest, written = await asyncio.to_thread(inspect, await _object(store, place), key)
        newest_ms = newest_ms or written.ingested_ms
        if 0 < written.ingested_ms < newest_ms - REWRITTEN_KEPT_MS:
            break
    return place, manifest.previous_sha256


def _hour_of(tail: Tail) -> datetime | None:
    """Of the last object: a broker's timestamps grow."""
    parsed = parse_key(tail.key) if tail.key else None
    return parsed[1].hour if parsed else None
