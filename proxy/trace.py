"""W3C trace context and `x-request-id`: read from the caller, made only when a setting asks for it. Pure."""

import re
import secrets
from dataclasses import dataclass

from proxy.headers import Headers, first

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_ID_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Trace:
    trace_id: str | None
    span_id: str | None  # ours, only when we added it
    parent_span_id: str | None
    x_request_id: str | None
    added: tuple[tuple[bytes, bytes], ...] = ()  # header lines for the upstream

    def facts(self) -> dict[str, str | None]:
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_span_id": self.parent_span_id,
            "x_request_id": self.x_request_id,
        }


def read_trace(headers: Headers, request_id: str, *, add_traceparent: bool, add_request_id: bool) -> Trace:
    """A caller's `traceparent` and `x-request-id` go on as they came and stand on the record."""
    added: list[tuple[bytes, bytes]] = []
    trace_id = span_id = parent_span_id = None
    given = first(headers, b"traceparent")
    found = _TRACEPARENT.fullmatch(given.strip()) if given else None
    if found is not None and set(found[1]) != {48} and set(found[2]) != {48}:  # all zero means none
        trace_id, parent_span_id = found[1].decode(), found[2].decode()
    elif given is None and add_traceparent:
        trace_id, span_id = request_id.replace("-", ""), secrets.token_hex(8)
        added.append((b"traceparent", f"00-{trace_id}-{span_id}-01".encode()))
    given_id = first(headers, b"x-request-id")
    if given_id is None and add_request_id:
        given_id = request_id.encode()
        added.append((b"x-request-id", given_id))
    x_request_id = given_id.decode("utf-8", "replace")[:_ID_CHARS_MAX] if given_id else None
    return Trace(trace_id, span_id, parent_span_id, x_request_id, tuple(added))
