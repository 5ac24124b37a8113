"""The shape of a call's facts when it is admitted: every field of `call.v1`, what is not known yet is null. Pure."""

from clearpane import __version__
from clearpane.contract import secrets
from clearpane.contract.envelope import SCHEMA, Facts
from proxy.control import Controls
from proxy.headers import Headers, first

_USER_AGENT_CHARS_MAX = 512


def first_facts(
    request_id: str, hostname: str, received_at: str, controls: Controls, key_fingerprint: str | None, headers: Headers
) -> Facts:
    """Of a call whose head has been read. `trace`, `target` and `request` are filled in by who knows them."""
    return {
        "schema": SCHEMA,
        "event": "started",
        "request_id": request_id,
        "client_request_id": controls.text("request-id"),
        "hostname": hostname,
        "version": __version__,
        "recorded_at": received_at,
        "trace": {"trace_id": None, "span_id": None, "parent_span_id": None, "x_request_id": None},
        "caller": _caller(controls, key_fingerprint, headers),
        "target": {"provider": None, "upstream": None, "operation": None, "url": None},
        "request": {},
        "response": {"status": None, **body_facts({}), "streamed": None, "end": None, "error": None},
        "timing": _timing(received_at),
        "policy": _policy(controls),
    }


def request_facts(method: str, target: str, headers: Headers) -> Facts:
    """`target` as the caller sent it; bytes of it that are no UTF-8 are shown as replacement characters."""
    path = target.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    allowed = secrets.safe_headers(headers, secrets.ALLOWED_REQUEST_HEADERS)
    return {"method": method, "path": secrets.safe_target(path), **body_facts(allowed)}


def body_facts(headers: dict[str, str]) -> Facts:
    return {
        "headers": headers,
        "body": None,
        "body_encoding": None,
        "content_encoding": headers.get("content-encoding"),
        "body_bytes": None,
        "body_sha256": None,
        "truncated": False,
    }


def _caller(controls: Controls, key_fingerprint: str | None, headers: Headers) -> Facts:
    agent = first(headers, b"user-agent")
    return {
        "key_fingerprint": key_fingerprint,
        "user_id": controls.text("user-id"),
        "session_id": controls.text("session-id"),
        "session_path": controls.text("session-path"),
        "session_name": controls.text("session-name"),
        "prompt_id": controls.text("prompt-id"),
        "properties": controls.properties,
        "tags": [],
        "user_agent": agent.decode("utf-8", "replace")[:_USER_AGENT_CHARS_MAX] if agent else None,
    }


def _timing(received_at: str) -> Facts:
    return {
        "received_at": received_at,
        "upstream_started_ms": None,
        "upstream_headers_ms": None,
        "first_byte_ms": None,
        "last_byte_ms": None,
        "proxy_ms": None,
        "duration_ms": None,
        "chunks": None,
        "chunk_gap_p50_ms": None,
        "chunk_gap_p95_ms": None,
        "chunk_gap_max_ms": None,
        "chunk_marks": [],
    }


def _policy(controls: Controls) -> Facts:
    return {
        "cache": None,
        "retries": [],
        "fallback_index": None,
        "rate_limit": None,
        "sampled": True,
        "omitted": controls.omitted,
        "dropped": [],
        "redactions": 0,
    }
