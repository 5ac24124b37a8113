"""One call: its facts as they become known, and the one place where it ends.

`started` is told once when the answer's head is there, `end` once, last, whatever happened. Both hand facts
to the spool; neither waits. The shape is `call.v1` (clearpane/contract/envelope.v1.schema.json).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

import orjson

from clearpane.contract import bodies, identifiers, secrets
from clearpane.contract.envelope import End, ErrorSource
from proxy.capture import Budget, Capture
from proxy.chunk_times import ChunkTimes
from proxy.control import Controls
from proxy.facts import first_facts, request_facts
from proxy.headers import Headers
from proxy.routes import Route
from proxy.trace import Trace

_STREAM_TYPES = ("text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream", "application/stream+json")
# Of a compressed error answer, when opened: providers' errors are a few hundred bytes.
_ERROR_BYTES_MAX, _ERROR_RATIO_MAX = 256 << 10, 100


class Spool(Protocol):
    """What a call needs of the spool (proxy/spool)."""

    def admit(self, facts: bytes) -> int: ...

    def started(self, sequence: int, facts: bytes) -> None: ...

    def completed(self, sequence: int, facts: bytes, request_body: bytes, response_body: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What all calls of a worker share in being recorded."""

    spool: Spool
    budget: Budget
    capture_bytes_max: int
    hostname: str
    fingerprint: Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call did not end well: whose fault, which kind (a closed set), and a text without secrets."""

    source: ErrorSource
    type: str
    message: str


class Call:
    """Monotonic times are seconds of time.perf_counter; offsets in the facts are milliseconds since `received`."""

    __slots__ = (
        "_received_s",
        "_recording",
        "_secrets",
        "_sequence",
        "chunk_times",
        "connect_s",
        "ended",
        "facts",
        "operation",
        "provider",
        "request",
        "request_id",
        "response",
        "upstream_started_ms",
    )  # fmt: skip

    def __init__(self, recording: Recording, *, method: str, target: str, headers: Headers, controls: Controls) -> None:
        self._recording = recording
        self._received_s = time.perf_counter()
        self.request_id = identifiers.new_request_id()
        self.request = Capture(recording.capture_bytes_max, recording.budget)
        self.response = Capture(recording.capture_bytes_max, recording.budget)
        self.chunk_times = ChunkTimes()
        self.ended = False
        self.connect_s = 0.0
        self.upstream_started_ms: float | None = None
        self.operation = "other"
        self.provider: str | None = None
        query = target.partition("?")[2].encode("utf-8", "surrogateescape")
        self._secrets = secrets.credentials_of(headers, query)
        key = secrets.credential_of(headers, query)
        fingerprint = recording.fingerprint(key) if key else None
        self.facts = first_facts(self.request_id, recording.hostname, _timestamp(time.time_ns()), controls, fingerprint, headers)
        self.facts["request"] = request_facts(method, target, headers)
        self._sequence = -1

    def admit(self, trace: Trace, route: Route | None) -> None:
        """The call can't vanish from here on."""
        self.facts["trace"] = trace.facts()
        if route is not None:
            self.operation, self.provider = route.operation, route.upstream.provider
            self.facts["target"] = {
                "provider": route.upstream.provider,
                "upstream": route.upstream.name,
                "operation": route.operation,
                "url": secrets.safe_url(_url_of(route)),
            }
        self._sequence = self._recording.spool.admit(orjson.dumps(self.facts))

    def now_ms(self) -> float:
        return (time.perf_counter() - self._received_s) * 1000

    def sending(self) -> None:
        """The request's head goes to the upstream's socket now."""
        self.upstream_started_ms = self.now_ms()
        timing = self.facts["timing"]
        timing["upstream_started_ms"] = round(self.upstream_started_ms, 3)
        timing["proxy_ms"] = round(self.proxy_ms, 3)

    @property
    def proxy_ms(self) -> float:
        return max((self.upstream_started_ms or 0.0) - self.connect_s * 1000, 0.0)

    def answered(self, status: int, headers: Headers) -> None:
        response = self.facts["response"]
        response["status"] = status
        response["headers"] = found = secrets.safe_headers(headers, secrets.ALLOWED_RESPONSE_HEADERS)
        response["content_encoding"] = found.get("content-encoding")
        response["streamed"] = found.get("content-type", "").startswith(_STREAM_TYPES)
        self.facts["timing"]["upstream_headers_ms"] = round(self.now_ms(), 3)

    def started(self) -> None:
        self.facts["recorded_at"] = _timestamp(time.time_ns())
        self._recording.spool.started(self._sequence, orjson.dumps(self.facts))

    def body(self, payload: list[bytes]) -> None:
        """A piece of the answer's body, transfer framing taken off."""
        for piece in payload:
            self.response.add(piece)
        if payload:
            self.chunk_times.add(self.now_ms(), self.response.seen)

    def end(self, end: End, failure: Failure | None = None) -> None:
        """The last word on the call. Whoever comes second changes nothing."""
        if self.ended:
            return
        self.ended = True
        self._last_facts(end, failure)
        request_body = self._close(self.request, "request")
        response_body = self._close(self.response, "response")
        self._recording.spool.completed(self._sequence, orjson.dumps(self.facts), request_body, response_body)

    def _close(self, capture: Capture, side: str) -> bytes:
        facts = self.facts[side]
        kept = capture.bytes()
        facts["body_bytes"], facts["body_sha256"] = capture.seen, capture.sha256()
        facts["truncated"] = capture.truncated
        kept, count = secrets.scrub(kept, self._secrets)
        if side == "response" and facts["content_encoding"] and (facts["status"] or 0) >= 400:
            kept, count = self._open_error(kept, not capture.truncated)
        self.facts["policy"]["redactions"] += count
        capture.close()
        return kept

    def _open_error(self, packed: bytes, complete: bool) -> tuple[bytes, int]:
        """An error may quote the caller's key, and only here it is known: the shipper knows the forms of keys alone."""
        facts = self.facts["response"]
        opened = bodies.decode(packed, facts["content_encoding"], bytes_max=_ERROR_BYTES_MAX, ratio_max=_ERROR_RATIO_MAX, complete=complete)
        plain, count = secrets.scrub(opened.data, self._secrets)
        if opened.error is not None or not count:
            return packed, 0
        facts["content_encoding"] = None
        return plain, count

    def _last_facts(self, end: End, failure: Failure | None) -> None:
        times = self.chunk_times
        response, timing = self.facts["response"], self.facts["timing"]
        self.facts["event"], self.facts["recorded_at"] = "completed", _timestamp(time.time_ns())
        response["end"] = end
        if failure is not None:
            response["error"] = {"source": failure.source, "type": failure.type, "message": failure.message}
        timing["duration_ms"] = round(self.now_ms(), 3)
        timing["chunks"] = times.count
        if times.count:
            timing["first_byte_ms"], timing["last_byte_ms"] = times.marks[0][0], round(times.last_ms or 0.0, 3)
            timing["chunk_marks"] = times.marks
            timing["chunk_gap_p50_ms"], timing["chunk_gap_p95_ms"] = times.gap_quantile_ms(0.5), times.gap_quantile_ms(0.95)
            timing["chunk_gap_max_ms"] = None if times.gap_max_ms is None else round(times.gap_max_ms, 3)


def _url_of(route: Route) -> str:
    """Bytes of the target that are no UTF-8 are shown as replacement characters: the record is JSON."""
    target = route.target.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return f"{route.upstream.origin.scheme}://{route.upstream.host.decode('ascii')}{target}"


def _timestamp(wall_ns: int) -> str:
    """UTC with microseconds, as `2026-11-21T02:03:04.000005Z`."""
    return f"{_second(wall_ns // 1_000_000_000)}.{wall_ns // 1000 % 1_000_000:06d}Z"


@lru_cache(maxsize=4)
def _second(wall_s: int) -> str:
    return f"{datetime.fromtimestamp(wall_s, tz=UTC):%Y-%m-%dT%H:%M:%S}"
