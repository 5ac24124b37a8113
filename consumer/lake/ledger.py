"""Which candidates are second copies of a call that stands in the chain already.

Of two copies of a call at least one says `attempt > 1`. So a first copy is looked up only among the calls
that entered the chain by a second copy (the tail knows them), and only a second copy in the whole chain
from its birth on, through the index.
"""

import asyncio
import uuid
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from clearpane.contract.identifiers import born_at
from clearpane.contract.lake import Place, hours_between
from clearpane.contract.members import NotAnObject
from clearpane.store import NotFound, Store
from consumer.lake import index
from consumer.lake.draft import Derivation, row_of
from consumer.lake.listing import places_in
from consumer.lake.messages import Candidate
from consumer.lake.patience import certain
from consumer.lake.tail import ChainBroken, Tail

IDS_MAX = 200_000  # kept in memory per log; the hours used longest ago go first
READS_AT_ONCE = 16  # of all ledgers together: each holds a whole index file
# An id may claim any birth; what is older than this is not looked up.
AGE_MAX = timedelta(days=62)
# A proxy's clock may be ahead of the log's.
_SLACK = timedelta(hours=1)


class Ledger:
    """Ids of one log, by the hour of their object. What is cached always equals the chain up to the tail."""

    def __init__(self, store: Store, derivation: Derivation, reads: asyncio.Semaphore) -> None:
        """`reads`: of READS_AT_ONCE, shared by all ledgers of the process."""
        self._store = store
        self._derivation = derivation
        self._reads = reads
        self._hours: OrderedDict[datetime, set[bytes]] = OrderedDict()
        self._newest: datetime | None = None

    async def fresh(self, candidates: list[Candidate], tail: Tail) -> list[Candidate]:
        """The candidates that are not copies, in order."""
        stored = await self._stored({c.request_id for c in candidates if c.request_id and c.attempt > 1}, tail)
        kept: list[Candidate] = []
        here: set[str] = set()
        for candidate in candidates:
            name = candidate.request_id
            if name is not None:
                if name in here or name in tail.rewritten or (candidate.attempt > 1 and name in stored):
                    continue
                here.add(name)
            kept.append(candidate)
        return kept

    def note(self, place: Place, ids: list[str]) -> None:
        """An object was added at the tail."""
        self._newest = max(self._newest or place.hour, place.hour)
        if place.hour in self._hours:
            self._hours[place.hour].update(_packed(name) for name in ids)

    def forget(self) -> None:
        """The tail moved by more than objects that were noted."""
        self._hours.clear()

    async def _stored(self, names: set[str], tail: Tail) -> set[str]:
        if not names or tail.key is None:
            return set()
        now = datetime.now(UTC)
        since = max(min(now, *map(born_at, names)), now - AGE_MAX) - _SLACK
        until = max(now, self._newest or now) + _SLACK
        found: set[str] = set()
        for hour in hours_between(since, until):
            ids = await self._ids(hour, tail)
            found |= {name for name in names if _packed(name) in ids}
        return found

    async def _ids(self, hour: datetime, tail: Tail) -> set[bytes]:
        if hour not in self._hours:
            self._hours[hour] = await self._read(hour, tail)
        self._hours.move_to_end(hour)
        while len(self._hours) > 1 and sum(map(len, self._hours.values())) > IDS_MAX:
            self._hours.popitem(last=False)
        return self._hours.get(hour, set())

    async def _read(self, hour: datetime, tail: Tail) -> set[bytes]:
        async def one(place: Place) -> set[bytes]:
            async with self._reads:
                return {_packed(name) for name in await self._request_ids(place)}

        # The truth is listed, not the index: an index file may be missing.
        found = [place for place in await places_in(self._store, tail.log, "calls", [hour]) if place.start < tail.end]
        if not found:
            return set()
        wide, ids = await self._put_together(hour, tail)
        rest = [place for place in found if not any(cover.covers(place) for cover in wide)]
        return ids.union(*await asyncio.gather(*(one(place) for place in rest)))

    async def _put_together(self, hour: datetime, tail: Tail) -> tuple[list[Place], set[bytes]]:
        """Index files that stand for many objects of the chain, and the ids in them."""
        covers, ids = [], set()
        for place in await places_in(self._store, tail.log, "index", [hour]):
            if place.last is None or place.last >= tail.end:
                continue
            try:
                async with self._reads:
                    names = await asyncio.to_thread(index.request_ids, await self._index(place))
                ids |= {_packed(name) for name in names}
            except (NotFound, ValueError):
                continue  # then each object's own
            covers.append(place)
        return covers, ids

    async def _index(self, place: Place) -> bytes:
        return await certain(lambda: self._store.get(place.key("index")), "get")

    async def _request_ids(self, place: Place) -> list[str]:
        try:
            data = await self._index(place)
            return await asyncio.to_thread(index.request_ids, data)
        except (NotFound, ValueError):
            return await asyncio.to_thread(index.request_ids, await self._rebuilt(place))

    async def _rebuilt(self, place: Place) -> bytes:
        key = place.key("calls")
        data = await certain(lambda: self._store.get(key), "get")
        try:
            made = await asyncio.to_thread(index.index_of, data, key, lambda record: row_of(record, self._derivation))
        except NotAnObject as error:
            raise ChainBroken(f"{key} is damaged: {error}") from error
        await certain(lambda: self._store.put(place.key("index"), made), "index")
        return made


def _packed(name: str) -> bytes:
    return uuid.UUID(name).bytes
