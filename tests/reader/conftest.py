"""A small lake maker: writes what the contract says, with the contract's own functions."""

import base64
import hashlib
import io
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clearpane.contract.identifiers import Log, new_spool_id
from clearpane.contract.lake import Place, place
from clearpane.contract.members import Manifest, digest, member, seal
from clearpane.contract.records import COLUMNS, SCHEMA, Row
from clearpane.store import Store

TYPES = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.decimal128(38, 18),
    "flag": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
    "texts": pa.list_(pa.string()),
    "map": pa.map_(pa.string(), pa.string()),
}
NOW = datetime(2025, 11, 21, 10, 30, 15, 123456, tzinfo=UTC)


def request_id(at: datetime) -> str:
    """A UUIDv7 born then."""
    random = uuid.uuid4().int & ((1 << 76) - 1)
    return str(uuid.UUID(int=int(at.timestamp() * 1000) << 80 | 0x7 << 76 | random & ~(0x3 << 62) | 0x2 << 62))


def call(at: datetime = NOW, **columns: Any) -> Row:
    """A row's values as a call received `at` would have them; any column can be set."""
    row: Row = dict.fromkeys(COLUMNS)
    row |= {
        "request_id": request_id(at),
        "received_at": at,
        "ingested_at": at + timedelta(seconds=2),
        "status": 200,
        "end": "complete",
        "provider": "openai",
        "upstream": "openai",
        "operation": "chat",
        "model": "gpt-4o-mini-2024-07-18",
        "model_requested": "gpt-4o-mini",
        "streamed": False,
        "properties": {},
        "input_tokens": 12,
        "output_tokens": 34,
        "total_tokens": 46,
        "usage_source": "provider",
        "cost_input": Decimal("0.0000018"),
        "cost_output": Decimal("0.0000204"),
        "cost_total": Decimal("0.0000222"),
        "cost_source": "book",
        "price_version": "genai-prices 0.2.3",
        "duration_ms": 812.5,
        "attempt": 1,
    }
    unknown = set(columns) - set(COLUMNS)
    assert not unknown, unknown
    return row | columns


def record(row: Row) -> dict[str, Any]:
    """The record behind a row, as far as readers look into it."""
    return {
        "schema": SCHEMA,
        "event": "completed",
        "request_id": row["request_id"],
        "client_request_id": row["client_request_id"],
        "caller": {"user_id": row["user_id"], "session_id": row["session_id"], "properties": row["properties"]},
        "target": {
            "provider": row["provider"],
            "upstream": row["upstream"],
            "operation": row["operation"],
            "url": "https://api.openai.com/v1/chat/completions",
        },
        "request": {"method": "POST", "path": "/v1/chat/completions", "body": '{"model":"gpt-4o-mini"}', "body_encoding": "utf-8"},
        "response": {"status": row["status"], "end": row["end"], "body": base64.b64encode(b"\x00\xff").decode(), "body_encoding": "base64"},
        "timing": {"received_at": row["received_at"].isoformat() if row["received_at"] else None},
        "derived": {},
        "lake": {"log": row["log"], "offset": row["offset"], "ingested_at": row["ingested_at"].isoformat()},
    }


@dataclass
class LakeMaker:
    """Appends objects to logs, each chained to the one before."""

    store: Store
    now: datetime = NOW
    tails: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    objects: list[str] = field(default_factory=list)

    call = staticmethod(call)
    request_id = staticmethod(request_id)

    async def append(
        self, log: str, rows: list[Row], *, end: int | None = None, indexed: bool = True, changed: dict[str, Any] | None = None
    ) -> Place:
        """One object and its index file. `changed` overwrites the manifest's facts."""
        start, previous = self.tails.get(log, (0, None))
        first = rows[0]["received_at"] or NOW
        where = place(log, start, int(first.timestamp() * 1000))
        manifest, data = self.sealed(where, rows, previous, end, changed or {})
        await self.store.put(where.key("calls"), data)
        if indexed:
            await self.store.put(where.key("index"), parquet(rows))
        self.tails[log] = (manifest.end, manifest.sha256)
        self.objects.append(where.key("calls"))
        return where

    def sealed(
        self, where: Place, rows: list[Row], previous: str | None, end: int | None, changed: dict[str, Any]
    ) -> tuple[Manifest, bytes]:
        for offset, row in enumerate(rows, where.start):
            row |= {"log": where.log, "offset": offset, "object": where.key("calls")}
        members = [member(orjson.dumps(record(row), option=orjson.OPT_APPEND_NEWLINE)) for row in rows]
        facts = {
            "log": where.log,
            "start": where.start,
            "end": where.start + len(rows) if end is None else end,
            "count": len(rows),
            "nonce": hashlib.sha256(where.key("calls").encode()).hexdigest()[:16],
            "sha256": digest(b"".join(members)),
            "previous_sha256": previous,
        }
        manifest = Manifest(**facts | changed)
        position = len(seal(manifest))
        for row, one in zip(rows, members, strict=True):
            row |= {"object_offset": position, "object_length": len(one)}
            position += len(one)
        return manifest, seal(manifest) + b"".join(members)


def parquet(rows: list[Row]) -> bytes:
    columns = {name: pa.array([_pairs(row[name]) for row in rows], TYPES[kind]) for name, kind in COLUMNS.items()}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _pairs(value: Any) -> Any:
    return list(value.items()) if isinstance(value, dict) else value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def maker(folder: Path) -> LakeMaker:
    return LakeMaker(Store.open(str(folder)))


@pytest.fixture
def spool_log() -> str:
    return Log.of_spool(new_spool_id()).name
