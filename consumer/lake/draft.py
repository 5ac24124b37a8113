"""Candidates -> one sealed object with its index: pure, and the CPU's share of a write (run it in a thread)."""

import base64
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from clearpane.contract import lake, members
from clearpane.contract.envelope import Envelope
from clearpane.contract.records import SCHEMA, Record, Row
from consumer import metrics
from consumer.lake import index
from consumer.lake.messages import Candidate
from consumer.lake.pending import Cut
from consumer.lake.tail import Tail, Written

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """The two pure functions that make an envelope a record and a record a row."""

    derive: Callable[[Envelope], dict[str, Any]]
    row: Callable[[Record], Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An object ready to be created; its bytes stay the same however often that is tried."""

    place: lake.Place
    manifest: members.Manifest
    data: bytes
    index: bytes
    rows: list[Row]
    written: Written
    poison: int


def compose(tail: Tail, cut: Cut, fresh: list[Candidate], nonce: str, derivation: Derivation) -> Draft:
    """`fresh` are the cut's candidates without copies."""
    place = lake.place(tail.log, tail.end, cut.anchor_ms)
    now = datetime.now(UTC)
    ingested_at = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    records = [_record(candidate, tail.log, ingested_at, derivation) for candidate in fresh]
    packed = [members.member(orjson.dumps(record) + b"\n") for record in records]
    content = b"".join(packed)
    manifest = members.Manifest(
        log=tail.log,
        start=tail.end,
        end=cut.end,
        count=len(packed),
        nonce=nonce,
        sha256=members.digest(content),
        previous_sha256=tail.sha256,
    )
    head = members.seal(manifest)
    rows = _rows(records, packed, place.key("calls"), len(head), derivation)
    return Draft(
        place=place,
        manifest=manifest,
        data=head + content,
        index=index.parquet(rows),
        rows=rows,
        written=_written(fresh, int(now.timestamp() * 1000)),
        poison=sum(c.envelope is None for c in fresh),
    )


def _written(fresh: list[Candidate], now_ms: int) -> Written:
    calls = [(c.request_id, c) for c in fresh if c.request_id is not None]
    return Written(
        ids=[name for name, _ in calls],
        second_copies=[name for name, c in calls if c.attempt > 1],
        ingested_ms=now_ms,
        last_offset=calls[-1][1].offset if calls else None,
    )


def _record(candidate: Candidate, log_name: str, ingested_at: str, derivation: Derivation) -> Record:
    place = {"log": log_name, "offset": candidate.offset, "ingested_at": ingested_at}
    if candidate.envelope is None:
        raw = base64.b64encode(candidate.raw or b"").decode("ascii")
        derived = {"parse_error": candidate.parse_error}
        return {"schema": SCHEMA, "request_id": None, "raw": raw, "derived": derived, "lake": place}
    return {**candidate.envelope, "schema": SCHEMA, "derived": _derived(candidate.envelope, derivation), "lake": place}


def _derived(envelope: Envelope, derivation: Derivation) -> dict[str, Any]:
    try:
        return derivation.derive(envelope)
    except Exception as error:  # noqa: BLE001  # a mistake in derivation is repaired later; a log that stands still is not
        metrics.derive_failed.inc()
        log.error("derivation of %s broke, the record is stored without it: %s", envelope["request_id"], _where(error))  # noqa: TRY400
        return {"parse_error": f"derivation broke: {type(error).__name__}"}


def row_of(record: Record, derivation: Derivation) -> Row:
    """Every record has a row, if only with its place."""
    try:
        return derivation.row(record)
    except Exception as error:  # noqa: BLE001  # as above
        metrics.derive_failed.inc()
        log.error("the row of %s broke, the index has only its place: %s", record.get("request_id"), _where(error))  # noqa: TRY400
        place = record.get("lake") or {}
        return {
            "request_id": record.get("request_id"),
            "log": place.get("log"),
            "offset": place.get("offset"),
            "parse_error": f"row broke: {type(error).__name__}",
        }


def _rows(records: list[Record], packed: list[bytes], key: str, start: int, derivation: Derivation) -> list[Row]:
    rows = []
    for record, member in zip(records, packed, strict=True):
        rows.append(index.pointed(row_of(record, derivation), key, start, len(member)))
        start += len(member)
    return rows


def _where(error: Exception) -> str:
    """Type and place, never the text: it may quote a body."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, line {frame.lineno} of {frame.filename.rpartition('/')[2]}"
