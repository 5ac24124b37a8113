"""Envelopes: a frame of the spool becomes the message that leaves the machine. Pure, and the same every time.

Bodies are decoded here, so that the topic and the lake hold readable text and redaction sees it; what can't be
decoded stays as it was on the wire, in base64.
"""

from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import orjson

from clearpane import __version__
from clearpane.contract import bodies, identifiers, secrets
from clearpane.contract.envelope import SCHEMA, Envelope, Facts
from proxy.shipper import omission
from proxy.spool import SpoolDamaged, split_completed

# A capture is bounded by the settings; what it decodes to is bounded here.
_BODY_BYTES_MAX = 32 << 20
_RATIO_MAX = 200
_SIDES = ("request", "response")


@dataclass(frozen=True, slots=True)
class Message:
    """One envelope as it is sent."""

    request_id: str
    recorded_at: str
    data: bytes
    redactions: int = 0


def started(payload: bytes | memoryview, source: str, sequence: int) -> Message:
    """Raises SpoolDamaged."""
    facts, found = _scrubbed(_facts(payload))
    facts["policy"]["redactions"] += found
    return _message(facts, source, sequence, 1)


def completed(payload: bytes | memoryview, source: str, sequence: int, attempt: int) -> Message:
    """Raises SpoolDamaged."""
    raw_facts, *captured = split_completed(payload)
    facts, found = _scrubbed(_checked(raw_facts))
    whole = facts["response"]["end"] == "complete"
    for side, wire in zip(_SIDES, captured, strict=True):
        found += _fill(facts[side], wire, whole=whole, omitted=side in facts["policy"]["omitted"])
    facts["policy"]["redactions"] += found
    _mark_decoded(facts, captured[1])
    return _message(facts, source, sequence, attempt)


def interrupted(payload: bytes | memoryview, source: str, sequence: int, attempt: int) -> Message:
    """The record of a call whose worker died: what was known last, at the time it was known. Raises SpoolDamaged."""
    facts, found = _scrubbed(_facts(payload))
    facts["event"] = "completed"
    facts["response"]["end"] = "interrupted"
    facts["response"]["error"] = {
        "source": "proxy",
        "type": "interrupted",
        "message": "the proxy's process died before the call had ended",
    }
    facts["policy"]["redactions"] += found
    return _message(facts, source, sequence, attempt)


def placeholder(request_id: str, source: str, sequence: int) -> Message:
    """Keeps the HTTP sequence whole where a record was numbered and the disk has lost it."""
    at = identifiers.born_at(request_id).isoformat(timespec="microseconds").replace("+00:00", "Z")
    side = dict.fromkeys(("body", "body_encoding", "content_encoding", "body_bytes", "body_sha256"))
    error = {"source": "proxy", "type": "record_lost", "message": "the proxy's disk lost this record"}
    caller = dict.fromkeys(("key_fingerprint", "user_id", "session_id", "session_path", "session_name", "prompt_id", "user_agent"))
    offsets = ("upstream_started_ms", "upstream_headers_ms", "first_byte_ms", "last_byte_ms", "proxy_ms", "duration_ms")
    gaps = ("chunk_gap_p50_ms", "chunk_gap_p95_ms", "chunk_gap_max_ms")
    facts: Facts = {
        "schema": SCHEMA, "event": "completed", "request_id": request_id, "client_request_id": None, "hostname": "",
        "version": __version__, "recorded_at": at,
        "trace": dict.fromkeys(("trace_id", "span_id", "parent_span_id", "x_request_id")),
        "caller": {**caller, "properties": {}, "tags": []},
        "target": dict.fromkeys(("provider", "upstream", "operation", "url")),
        "request": {**side, "method": "", "path": "", "headers": {}, "truncated": False},
        "response": {**side, "status": None, "headers": {}, "truncated": False, "streamed": None, "end": "interrupted", "error": error},
        "timing": {"received_at": at, **dict.fromkeys(offsets), "chunks": None, **dict.fromkeys(gaps), "chunk_marks": []},
        "policy": {
            "cache": None, "retries": [], "fallback_index": None, "rate_limit": None, "sampled": False, "omitted": [],
            "dropped": list(_SIDES), "redactions": 0,
        },
    }  # fmt: skip
    return _message(facts, source, sequence, 1)


def shrunk(message: Message) -> Message:
    """The same record with the skeletons of its bodies: for a record that no path takes as it is."""
    envelope: Envelope = orjson.loads(message.data)
    for side in _SIDES:
        kept = omission.of_bytes(_wire(envelope[side])) if envelope[side]["body"] else None
        envelope[side]["body"], envelope[side]["body_encoding"] = kept, "utf-8" if kept else None
    envelope["policy"]["dropped"] = list(_SIDES)
    return Message(message.request_id, message.recorded_at, orjson.dumps(envelope), message.redactions)


def _wire(side: dict[str, Any]) -> bytes:
    body: str = side["body"]
    return b64decode(body) if side["body_encoding"] == "base64" else body.encode()


def _message(facts: Facts, source: str, sequence: int, attempt: int) -> Message:
    data = orjson.dumps({**facts, "source": source, "sequence": sequence, "attempt": attempt})
    return Message(facts["request_id"], facts["recorded_at"], data, facts["policy"]["redactions"])


def _facts(payload: bytes | memoryview) -> Facts:
    try:
        return _checked(orjson.loads(payload))
    except orjson.JSONDecodeError:
        raise SpoolDamaged("the facts of a call are not JSON") from None


def _checked(facts: Any) -> Facts:
    """Only what this module itself goes into; the worker vouches for the rest."""
    try:
        identifiers.born_at(facts["request_id"])
        _ = facts["recorded_at"] + facts["timing"]["received_at"], facts["policy"]["omitted"], facts["policy"]["redactions"] + 0
        _ = facts["response"]["end"], facts["response"]["truncated"], facts["request"]["truncated"]
        _ = facts["request"]["content_encoding"], facts["response"]["content_encoding"]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SpoolDamaged("the facts of a call have not the form of call.v1") from None
    return dict(facts)


def _scrubbed(facts: Facts) -> tuple[Facts, int]:
    """A caller may put a key where none belongs: into its user id, its path, its session's name."""
    data, found = secrets.scrub(orjson.dumps(facts))
    return (orjson.loads(data), found) if found else (facts, 0)


def _mark_decoded(facts: Facts, wire: bytes) -> None:
    """The marks of a compressed stream count its bytes on the wire; here are the same times with the bytes of the body below."""
    response, marks = facts["response"], facts["timing"].get("chunk_marks")
    if response.get("streamed") and response["content_encoding"] and response["body_encoding"] == "utf-8" and marks:
        sizes = bodies.decoded_sizes(wire, response["content_encoding"], [size for _, size in marks], bytes_max=_BODY_BYTES_MAX)
        facts["timing"]["decoded_marks"] = [(at_ms, size) for (at_ms, _), size in zip(marks, sizes, strict=False)]


def _fill(facts: dict[str, Any], wire: bytes, *, whole: bool, omitted: bool) -> int:
    """Sets body and body_encoding of one side; returns the number of redactions."""
    complete = whole and not facts["truncated"]
    decoded = bodies.decode(wire, facts["content_encoding"], bytes_max=_BODY_BYTES_MAX, ratio_max=_RATIO_MAX, complete=complete)
    readable = decoded.error in {None, bodies.TRUNCATED}
    data, found = secrets.scrub(decoded.data if readable else wire)
    text, encoding = bodies.as_text(data, complete=complete and decoded.error is None) if readable else bodies.as_base64(data)
    if omitted:
        text, encoding = (omission.of_bytes(data) if readable else None) or "", "utf-8"
        found = 0
    facts["body"], facts["body_encoding"] = (text, encoding) if text else (None, None)
    return found
