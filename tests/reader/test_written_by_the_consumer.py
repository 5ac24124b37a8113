"""What the consumer's own writer makes is what the readers read: nothing here is made by the tests but the envelopes."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from clearpane.contract.identifiers import Log, new_request_id, new_spool_id
from clearpane.store import Store
from consumer.derive import PriceBook, derive, row
from consumer.lake.chain import Chain, Lake
from consumer.lake.draft import Derivation
from consumer.lake.messages import Message, decode
from consumer.lake.pending import Limits, Pending
from reader import rows
from reader.filter import Filter
from reader.query import query
from reader.record import find, open_record
from reader.show import page
from reader.verify import verify

BOOK = PriceBook()
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}


def envelope(at: datetime) -> dict[str, Any]:
    answer = {
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"content": "Far."}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    return {
        "schema": "call.v1",
        "event": "completed",
        "request_id": new_request_id(),
        "attempt": 1,
        "caller": {"user_id": "alice", "properties": {"team": "blue"}},
        "target": {"provider": "openai", "upstream": "openai", "operation": "chat", "url": None},
        "request": {
            "method": "POST",
            "path": "/v1/chat/completions",
            "body": '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"How far?"}]}',
            "body_encoding": "utf-8",
        },
        "response": {"status": 200, "end": "complete", "body": orjson.dumps(answer).decode(), "body_encoding": "utf-8", "headers": {}},
        "timing": {"received_at": at.isoformat(timespec="microseconds"), "duration_ms": 5.0},
    }


async def write(store: Store, log: str, values: list[bytes], at: datetime) -> None:
    derivation = Derivation(derive=lambda found: derive(found, BOOK), row=row)
    chain = await Chain.open(Lake(store=store, derivation=derivation, limits=Limits(records_max=7, bytes_max=1 << 20)), log)
    pending = Pending(end=chain.tail.end)
    for offset, value in enumerate(values, chain.tail.end):
        pending.add(offset, decode(Message(offset=offset, timestamp_ms=int(at.timestamp() * 1000), value=value)))
    await chain.append(pending)


@pytest.fixture
def store(folder: Any) -> Store:
    return Store.open(str(folder))


async def test_all_readers_agree_with_the_writer(store: Store) -> None:
    await _all_agree(store, datetime.now(UTC))


@pytest.mark.s3
async def test_all_readers_agree_with_the_writer_on_s3(s3_lake: str) -> None:
    await _all_agree(Store.open(s3_lake), datetime.now(UTC))


async def _all_agree(store: Store, at: datetime) -> None:
    envelopes = [envelope(at) for _ in range(40)]
    poison = [b"not JSON", b"{}"]
    await write(store, Log.of_partition("clearpane.calls", 2).name, [orjson.dumps(e) for e in envelopes[:20]] + poison, at)
    await write(store, Log.of_spool(new_spool_id()).name, [orjson.dumps(e) for e in envelopes[20:]], at)
    report = await verify(store)
    assert report.findings == []
    assert (report.logs, report.records, report.in_flight) == (2, 42, [])
    found = [row async for row in rows.rows(store, Filter())]
    assert {row["request_id"] for row in found} == {e["request_id"] for e in envelopes} | {None}
    assert sum(row["cost_total"] or 0 for row in found) == 40 * Decimal("0.00045")
    with query(store, "select count(*), sum(cost_total), sum(total_tokens) from calls where properties['team'] = 'blue'") as answer:
        assert list(answer.rows) == [(40, Decimal("0.018"), 60_000)]
    (row_,) = await find(store, envelopes[0]["request_id"])
    record = orjson.loads(await open_record(store, row_))
    assert record["request"] == envelopes[0]["request"]
    text = page(record, width=100, zone=UTC)
    for part in ("user: How far?", "Far.", "stated by the provider", "$0.00045", "priced by the book"):
        assert part in text
