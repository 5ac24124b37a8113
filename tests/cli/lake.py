"""A lake of a month ago, written by the consumer's own writer, and what every reader must find in it."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from clearpane.cli.upkeep import Step, compact, sweep
from clearpane.contract.identifiers import Log, new_request_id, new_spool_id
from clearpane.store import Store, StoreUnavailable
from consumer.derive import PriceBook, derive, row
from consumer.lake.chain import Chain, Lake
from consumer.lake.draft import Derivation
from consumer.lake.messages import Message, decode
from consumer.lake.pending import Limits, Pending
from reader import rows
from reader.filter import Filter
from reader.lake import Hours
from reader.query import query
from reader.record import find, open_record
from reader.verify import verify

NOW = datetime.now(UTC)
OLD = NOW.replace(minute=30) - timedelta(days=30)
KAFKA = Log.of_partition("clearpane.calls", 2).name
BOOK = PriceBook()
DERIVATION = Derivation(derive=lambda found: derive(found, BOOK), row=row)
ALL = Hours()


def born(at: datetime) -> str:
    """An id of a call received then."""
    digits = f"{int(at.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}{new_request_id()[13:]}"


def envelope(at: datetime, attempt: int = 1, request_id: str | None = None) -> dict[str, Any]:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    answer = {"model": "gpt-4o-mini-2024-07-18", "choices": [{"index": 0, "message": {"content": "Far."}}], "usage": usage}
    return {
        "schema": "call.v1",
        "event": "completed",
        "request_id": request_id or born(at),
        "attempt": attempt,
        "caller": {"user_id": "alice", "properties": {"team": "blue"}},
        "target": {"provider": "openai", "upstream": "openai", "operation": "chat", "url": None},
        "request": {"method": "POST", "path": "/v1/chat/completions", "body": '{"model":"gpt-4o-mini"}', "body_encoding": "utf-8"},
        "response": {"status": 200, "end": "complete", "body": orjson.dumps(answer).decode(), "body_encoding": "utf-8", "headers": {}},
        "timing": {"received_at": at.isoformat(timespec="microseconds"), "duration_ms": 5.0},
    }


async def opened(store: Store, log: str) -> Chain:
    return await Chain.open(Lake(store=store, derivation=DERIVATION, limits=Limits(records_max=4, bytes_max=1 << 20)), log)


async def write(store: Store, log: str, envelopes: list[dict[str, Any]], at: datetime) -> None:
    chain = await opened(store, log)
    pending = Pending(end=chain.tail.end)
    for offset, one in enumerate(envelopes, chain.tail.end):
        pending.add(offset, decode(Message(offset, int(at.timestamp() * 1000), orjson.dumps(one))))
    await chain.append(pending)


class World:
    """A lake of two logs over three hours, eight objects an hour, and what every reader must find in it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ids: list[str] = []
        self.spool_log = Log.of_spool(new_spool_id()).name

    async def fill(self) -> "World":
        for hour in range(3):
            at = OLD + timedelta(hours=hour)
            for log in (KAFKA, self.spool_log):
                envelopes = [envelope(at) for _ in range(16)]
                await write(self.store, log, envelopes, at)
                self.ids += [one["request_id"] for one in envelopes]
        return self

    async def files(self) -> dict[str, bytes]:
        return {entry.key: await self.store.get(entry.key) for entry in await self.store.list("index/")}

    async def check(self) -> None:
        """`calls`, `query`, `show` and `verify` agree with what was written."""
        found = [one async for one in rows.rows(self.store, Filter())]
        assert Counter(one["request_id"] for one in found) == Counter(self.ids)
        newest = await rows.newest(self.store, Filter(), 10)
        assert [one["received_at"] for one in newest] == sorted(one["received_at"] for one in found)[-10:]
        with query(self.store, "select count(*), count(distinct request_id), sum(total_tokens) from calls") as answer:
            assert list(answer.rows) == [(len(self.ids), len(self.ids), 15 * len(self.ids))]
        for name in self.ids[:: len(self.ids) // 4]:
            (one,) = await find(self.store, name)
            assert orjson.loads(await open_record(self.store, one))["request_id"] == name
        report = await verify(self.store)
        assert (report.findings, report.records) == ([], len(self.ids))


async def done(steps: AsyncIterator[Step]) -> list[Step]:
    return [step async for step in steps]


async def compacted(store: Store, now: datetime = NOW) -> None:
    await done(compact(store, row, ALL, now=now, apply=True))
    await done(sweep(store, ALL, now=now))


class Failing:
    """A store that breaks before its Nth change."""

    def __init__(self, store: Store, changes: int) -> None:
        self._store, self.left = store, changes

    def __getattr__(self, name: str) -> Any:
        if name not in ("put", "delete", "create"):
            return getattr(self._store, name)

        async def change(*arguments: Any) -> None:
            if self.left == 0:
                raise StoreUnavailable("broken off")
            self.left -= 1
            await getattr(self._store, name)(*arguments)

        return change


def hour(number: int) -> datetime:
    return (OLD + timedelta(hours=number)).replace(minute=0, second=0, microsecond=0)
