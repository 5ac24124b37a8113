"""A worker's note of a call -> the facts of its record, in the shape of `call.v1`. Pure.

Everything that can be said of a call from what the worker saw is said here, outside the worker.
"""

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from clearpane import __version__
from clearpane.contract import bodies, secrets
from clearpane.contract.envelope import SCHEMA, Facts
from proxy.chunk_times import gap_quantile_ms
from proxy.recorder.note import Kind, Note, Side
from proxy.recorder.transcript import deflated, transcript

_STREAM_TYPES = ("text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream", "application/stream+json")
_SWITCHED = 101  # to a WebSocket
# Of a compressed error answer, when opened: providers' errors are a few hundred bytes.
_ERROR_BYTES_MAX, _ERROR_RATIO_MAX = 256 << 10, 100
# Callers send a handful of heads all day.
_PLANS_KEPT = 1024
_SIDES = ("request", "response")
_INCLUDE_USAGE = ("requested", "withheld_bytes", "reason")


def facts_of(note: Note, hostname: str) -> tuple[Facts, bytes, bytes]:
    """The facts, and what is kept of the request's and the answer's body: as on the wire, without the caller's secrets."""
    plan = _plan(note.plan)
    facts: Facts = {
        "schema": SCHEMA,
        "event": "completed" if note.kind == Kind.COMPLETED else "started",
        "request_id": note.request_id,
        "client_request_id": plan["client_request_id"],
        "hostname": hostname,
        "version": __version__,
        "recorded_at": _timestamp(note.recorded_ns),
        "trace": plan["trace"] if note.trace is None else dict(zip(plan["trace"], note.trace, strict=True)),
        "caller": plan["caller"],
        "target": plan["target"],
        "request": {"method": plan["method"], "path": plan["path"], **_side(plan["headers"])},
        "response": _response(note),
        "timing": _timing(note),
        "policy": _policy(plan["omitted"], list(_SIDES) if note.dropped else [], note.include_usage),
    }
    request = _body(facts, "request", note.request, note)
    response = _body(facts, "response", note.response, note)
    return facts, request, response


@lru_cache(maxsize=_PLANS_KEPT)
def _plan(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(data)
    return found


def _side(headers: dict[str, str]) -> Facts:
    return {
        "headers": headers,
        "body": None,
        "body_encoding": None,
        "content_encoding": headers.get("content-encoding"),
        "body_bytes": None,
        "body_sha256": None,
        "truncated": False,
    }


def _response(note: Note) -> Facts:
    lines = (line.partition(b":") for line in note.head.split(b"\r\n") if line) if note.head is not None else ()
    headers = secrets.safe_headers(((name, value.strip(b" \t")) for name, _, value in lines), secrets.ALLOWED_RESPONSE_HEADERS)
    streams = note.status == _SWITCHED or headers.get("content-type", "").startswith(_STREAM_TYPES)
    streamed = streams if note.status is not None else None
    error = None if note.error is None else dict(zip(("source", "type", "message"), note.error, strict=True))
    return {"status": note.status, **_side(headers), "streamed": streamed, "end": note.end, "error": error}


def _timing(note: Note) -> Facts:
    count, marks, gaps, gap_max_ms, last_ms = note.chunks or (None, [], [], None, 0.0)
    return {
        "received_at": _timestamp(note.received_ns),
        "upstream_started_ms": _rounded(note.upstream_started_ms),
        "upstream_headers_ms": _rounded(note.headers_ms),
        "first_byte_ms": _rounded(marks[0][0]) if count else None,
        "last_byte_ms": _rounded(last_ms) if count else None,
        "proxy_ms": _rounded(note.proxy_ms),
        "duration_ms": _rounded(note.duration_ms),
        "chunks": count,
        "chunk_gap_p50_ms": gap_quantile_ms(gaps, 0.5),
        "chunk_gap_p95_ms": gap_quantile_ms(gaps, 0.95),
        "chunk_gap_max_ms": _rounded(gap_max_ms),
        "chunk_marks": [(_rounded(at_ms), body_bytes) for at_ms, body_bytes in marks],
    }


def _policy(omitted: list[str], dropped: list[str], include_usage: tuple[bool, int, str | None] | None) -> Facts:
    asked = {} if include_usage is None else {"include_usage": dict(zip(_INCLUDE_USAGE, include_usage, strict=True))}
    return {
        "cache": None,
        "retries": [],
        "fallback_index": None,
        "rate_limit": None,
        "sampled": True,
        "omitted": omitted,
        "dropped": dropped,
        "redactions": 0,
        **asked,
    }


def _body(facts: Facts, name: str, noted: tuple[int, bool, str | None, list[bytes]] | None, note: Note) -> bytes:
    """Fills in what is known of one side's body. Returns what is kept of it."""
    if noted is None:
        return b""
    side, found = facts[name], Side(*noted)
    wire = found.pieces[0] if len(found.pieces) == 1 else b"".join(found.pieces)
    side["body_bytes"], side["truncated"] = found.seen, found.truncated
    side["body_sha256"] = found.sha256 or hashlib.sha256(wire).hexdigest()
    if facts["policy"]["dropped"]:
        return b""
    if note.times_ms is not None:
        kept, cut, count = transcript(
            found.pieces, note.times_ms[_SIDES.index(name)], deflated=deflated(note.head or b""), known=note.secrets
        )
        side["truncated"] = found.truncated or cut
    else:
        kept, count = secrets.scrub(wire, note.secrets)
    if name == "response" and side["content_encoding"] and (side["status"] or 0) >= 400:
        kept, count = _open_error(side, kept, note.secrets, complete=not found.truncated)
    facts["policy"]["redactions"] += count
    return kept


def _open_error(side: Facts, packed: bytes, known: tuple[bytes, ...], *, complete: bool) -> tuple[bytes, int]:
    """An error may quote the caller's key, and only here it is known: the shipper knows the forms of keys alone."""
    opened = bodies.decode(packed, side["content_encoding"], bytes_max=_ERROR_BYTES_MAX, ratio_max=_ERROR_RATIO_MAX, complete=complete)
    plain, count = secrets.scrub(opened.data, known)
    if opened.error is not None or not count:
        return packed, 0
    side["content_encoding"] = None
    return plain, count


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 3)


def _timestamp(wall_ns: int) -> str:
    """UTC with microseconds, as `2026-11-21T02:03:04.000005Z`."""
    return f"{_second(wall_ns // 1_000_000_000)}.{wall_ns // 1000 % 1_000_000:06d}Z"


@lru_cache(maxsize=64)
def _second(wall_s: int) -> str:
    return f"{datetime.fromtimestamp(wall_s, tz=UTC):%Y-%m-%dT%H:%M:%S}"
