"""One call: what becomes known of it, and the one place where it ends.

`admit` says that it is there, `started` is told once when the answer's head is there, `end` once, last, whatever
happened. Each hands a note to the recorder; none waits.
"""

import time
from dataclasses import dataclass
from typing import Any, Protocol

from clearpane.contract.envelope import End, ErrorSource
from clearpane.contract.identifiers import new_request_id
from proxy.capture import Budget, Capture
from proxy.chunk_times import ChunkTimes
from proxy.plan import Plan
from proxy.recorder.note import Kind
from proxy.trace import Trace

_ADMITTED, _STARTED, _COMPLETED = int(Kind.ADMITTED), int(Kind.STARTED), int(Kind.COMPLETED)
_clock = time.perf_counter


class Recorder(Protocol):
    """What a call needs of the recorder (proxy/recorder)."""

    def admit(self) -> int: ...  # the call's sequence number

    def send(self, note: tuple[Any, ...]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What all calls of a worker share in being recorded."""

    recorder: Recorder
    budget: Budget
    capture_bytes_max: int


@dataclass(frozen=True, slots=True)
class Failure:
    source: ErrorSource
    type: str
    message: str


class Call:
    """Made when the request's head has been read. Times in ms are since then."""

    __slots__ = (
        "_head",
        "_headers_ms",
        "_received_ns",
        "_received_s",
        "_recorder",
        "_sequence",
        "_trace",
        "added",
        "chunk_times",
        "connect_s",
        "end_reason",
        "ended",
        "failure",
        "include_usage",
        "plan",
        "proxy_ms",
        "request",
        "request_id",
        "response",
        "status",
        "times_ms",
        "upstream_started_ms",
    )

    def __init__(self, recording: Recording, plan: Plan) -> None:
        self._received_s = _clock()
        self._received_ns = time.time_ns()
        self.plan = plan
        self.request_id = new_request_id()
        self.request = Capture(recording.capture_bytes_max, recording.budget)
        self.response = Capture(recording.capture_bytes_max, recording.budget)
        self.chunk_times = ChunkTimes()
        self.ended = False
        self.end_reason: End | None = None
        self.failure: Failure | None = None
        self.connect_s = 0.0
        self.upstream_started_ms: float | None = None
        self.proxy_ms = 0.0
        self.added = b""  # header lines for the upstream that the caller did not send
        self.status: int | None = None
        self.times_ms: tuple[list[float], list[float]] | None = None
        self.include_usage: tuple[bool, int, str | None] | None = None  # see Note
        self._headers_ms: float | None = None
        self._head: bytes | None = None
        self._trace: tuple[str | None, str | None, str | None, str | None] | None = None
        self._recorder = recorder = recording.recorder
        self._sequence = recorder.admit()

    def admit(self, trace: Trace | None = None) -> None:
        """The call can't vanish from here on."""
        if trace is not None:
            self._trace = (trace.trace_id, trace.span_id, trace.parent_span_id, trace.x_request_id)
            self.added = b"".join(b"%b: %b\r\n" % line for line in trace.added)
        self._recorder.send((_ADMITTED, *self._known(self._received_ns)))

    def now_ms(self) -> float:
        return (_clock() - self._received_s) * 1000

    def sending(self) -> None:
        """The request's head goes to the upstream's socket now."""
        self.upstream_started_ms = at_ms = (_clock() - self._received_s) * 1000
        self.proxy_ms = max(at_ms - self.connect_s * 1000, 0.0)

    def answered(self, status: int, head: bytes) -> None:
        """`head`: the answer's header lines as they came."""
        self.status, self._head, self._headers_ms = status, head, (_clock() - self._received_s) * 1000

    def switched(self) -> None:
        """Both ways are a WebSocket from here on: when a piece came is as much of the call as what it holds."""
        request, response = self.request.timed(self.now_ms), self.response.timed(self.now_ms)
        self.request, self.response, self.times_ms = request, response, (request.times_ms, response.times_ms)

    def started(self) -> None:
        self._recorder.send((_STARTED, *self._known(time.time_ns()), *self._answer()))

    def body(self, payload: list[bytes]) -> None:
        """A piece of the answer's body, transfer framing taken off."""
        response = self.response
        for piece in payload:
            response.add(piece)
        if payload:
            self.chunk_times.add((_clock() - self._received_s) * 1000, response.seen)

    def end(self, end: End, failure: Failure | None = None) -> None:
        """The last word on the call. Whoever comes second changes nothing."""
        if self.ended:
            return
        self.ended = True
        self.end_reason, self.failure = end, failure
        self._recorder.send(
            (
                _COMPLETED,
                *self._known(time.time_ns()),
                *self._answer(),
                end,
                None if failure is None else (failure.source, failure.type, failure.message),
                (_clock() - self._received_s) * 1000,
                self.chunk_times.noted(),
                self.request.close(),
                self.response.close(),
                self.plan.secrets,
                False,
                self.times_ms,
                self.include_usage,
            )
        )

    # Parts of a note, in the order of proxy.recorder.note.Note

    def _known(self, recorded_ns: int) -> tuple[int, bytes, str, int, int, Any]:
        return self._sequence, self.plan.facts, self.request_id, self._received_ns, recorded_ns, self._trace

    def _answer(self) -> tuple[float | None, float | None, float | None, int | None, bytes | None]:
        started_ms = self.upstream_started_ms
        return started_ms, None if started_ms is None else self.proxy_ms, self._headers_ms, self.status, self._head
