"""A log's message -> what may become a record. Nothing raises: what cannot be read is kept raw."""

from dataclasses import dataclass

import orjson

from clearpane.contract import envelope as contract
from clearpane.contract.envelope import Envelope
from clearpane.contract.identifiers import born_at

# 2200-01-01. A timestamp out of range is a broken clock, and must not stop a log.
_TIMESTAMP_MS_MAX = 7_258_118_400_000


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a log, as the log keeps it."""

    offset: int
    timestamp_ms: int  # the log's own, immutable
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A message that becomes a record unless it is a second copy."""

    offset: int
    timestamp_ms: int
    size: int  # bytes of the message
    request_id: str | None = None
    attempt: int = 1
    envelope: Envelope | None = None
    raw: bytes | None = None  # poison
    parse_error: str | None = None


class NotAnEnvelope(ValueError):
    """What is wrong with the bytes."""


def parse(value: bytes) -> Envelope:
    """An envelope whose identity can be relied on. Raises NotAnEnvelope."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise NotAnEnvelope(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise NotAnEnvelope("not a JSON object")
    if found.get("schema") != contract.SCHEMA:
        raise NotAnEnvelope(f"schema is not {contract.SCHEMA}")
    if found.get("event") not in ("started", "completed"):
        raise NotAnEnvelope("event is neither started nor completed")
    attempt = found.get("attempt")
    if not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 1:
        raise NotAnEnvelope("attempt is not a whole number from 1 on")
    _check_request_id(found.get("request_id"))
    return found


def _check_request_id(found: object) -> None:
    try:
        # One spelling per id: another one would not be recognised as the same call.
        if not isinstance(found, str) or len(found) != 36 or found != found.lower():
            raise NotAnEnvelope("request_id is not a UUIDv7")
        born_at(found)
    except (ValueError, OverflowError) as error:
        raise NotAnEnvelope("request_id is not a UUIDv7") from error


def decode(message: Message) -> Candidate | None:
    """None for `started`: seen, and not a record."""
    timestamp_ms = message.timestamp_ms if 0 <= message.timestamp_ms <= _TIMESTAMP_MS_MAX else 0
    size = len(message.value)
    try:
        found = parse(message.value)
    except NotAnEnvelope as error:
        return Candidate(offset=message.offset, timestamp_ms=timestamp_ms, size=size, raw=message.value, parse_error=str(error))
    if found["event"] == "started":
        return None
    return Candidate(
        offset=message.offset,
        timestamp_ms=timestamp_ms,
        size=size,
        request_id=found["request_id"],
        attempt=found["attempt"],
        envelope=found,
    )
