"""One record in full, for people."""

import base64
import binascii
import textwrap
from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Any, Literal

import orjson

from clearpane.contract.records import Row
from reader.table import money, printable
from reader.turns import content, turns

Side = Literal["request", "response"]

_LABEL = 10
_WIDTH_MAX = 120  # of running text: longer lines are hard to read
_BUCKETS = {
    "input_tokens": "input",
    "cache_read_tokens": "cache read",
    "cache_read_audio_tokens": "cache read, audio",
    "cache_write_5m_tokens": "cache write, 5 min",
    "cache_write_1h_tokens": "cache write, 1 h",
    "input_audio_tokens": "input, audio",
    "input_image_tokens": "input, image",
    "output_tokens": "output",
    "reasoning_tokens": "reasoning",
    "output_audio_tokens": "output, audio",
    "output_image_tokens": "output, image",
}
_ENDS = {
    "complete": "complete",
    "client_disconnected": "the client went away",
    "upstream_error": "the upstream broke",
    "timeout": "timed out",
    "shutdown": "cut off: the proxy stopped",
    "rejected": "refused by the proxy",
    "interrupted": "cut off: the proxy's process died",
}
_SOURCES = {
    "provider": "stated by the provider",
    "estimated": "estimated",
    "book": "priced by the book",
    "assumed": "priced by the book, provider assumed",
    "overlay": "priced by your overlay",
    "unknown": "unknown",
}


class NoBody(Exception):
    """Why there is no body to print."""


def page(record: dict[str, Any], *, width: int, zone: tzinfo | None, colored: bool = False, row: Row | None = None) -> str:
    """`zone` None is the machine's own; `row` is the index's, for what came after the record. Never raises for what a record holds."""
    record = _Groups(record)
    room = max(40, min(width, _WIDTH_MAX) - _LABEL)
    lines = [_paint(printable(str(record.get("request_id") or "a message that could not be parsed")), "1", colored), ""]
    for label, parts in _sections(record, row or {}, zone):
        body = [line for part in parts for line in _wrapped(part, room)]
        if body:
            lines += [
                _paint(label.upper().ljust(_LABEL), "2", colored) + body[0],
                *(f"{'':{_LABEL}}{line}".rstrip() for line in body[1:]),
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def body(record: dict[str, Any], side: Side) -> bytes:
    """One side's body as it is stored. Raises NoBody."""
    found = _Groups(record).group(side)
    if found.get("body") is None:
        raise NoBody(_absence(_Groups(record), side))
    if found.get("body_encoding") != "base64":
        return str(found["body"]).encode()
    try:
        return base64.b64decode(found["body"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise NoBody(f"the {side}'s body is no base64") from error


class _Groups(dict[str, Any]):
    """A record whose groups may be missing or of another form, as those of a poison message are."""

    def group(self, *path: str) -> "_Groups":
        value: Any = self
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return _Groups(value if isinstance(value, dict) else {})


def _sections(record: _Groups, row: Row, zone: tzinfo | None) -> Iterator[tuple[str, list[str]]]:
    yield "when", _when(record, zone)
    yield "who", _who(record)
    yield "what", _what(record)
    yield "end", _end(record)
    yield "request", _request(record)
    yield "answer", _answer(record)
    yield "tokens", _tokens(record)
    yield "cost", [*_cost(record), *_repriced(row)]
    yield "timing", _timing(record)
    yield "stored", _stored(record)


def _when(record: _Groups, zone: tzinfo | None) -> list[str]:
    try:
        moment = datetime.fromisoformat(str(record.group("timing").get("received_at"))).astimezone(zone)
    except (ValueError, OverflowError):
        return []
    return [moment.isoformat(sep=" ", timespec="milliseconds")]


def _who(record: _Groups) -> list[str]:
    caller = record.group("caller")
    session = _joined(caller.get("session_id"), caller.get("session_path"), caller.get("session_name"))
    named = {"user": caller.get("user_id"), "session": session, "prompt": caller.get("prompt_id"), "key": caller.get("key_fingerprint")}
    ids = {"their id": record.get("client_request_id"), "trace": record.group("trace").get("trace_id")}
    properties = [f"{name} = {value}" for name, value in caller.group("properties").items()]
    return [_named(named), _named(ids), *properties, _joined(caller.get("user_agent"))]


def _what(record: _Groups) -> list[str]:
    request, target, derived = record.group("request"), record.group("target"), record.group("derived")
    asked, answered = derived.get("model_requested"), derived.get("model")
    model = f"{asked} → {answered}" if asked and answered and asked != answered else answered or asked
    params = ", ".join(f"{name} {value}" for name, value in derived.group("params").items())
    return [
        _joined(request.get("method"), request.get("path"), separator=" "),
        _joined(target.get("provider"), target.get("operation"), "streamed" if derived.get("streamed") else None, target.get("url")),
        _joined(model, derived.get("model_version"), derived.get("service_tier")),
        params,
    ]


def _end(record: _Groups) -> list[str]:
    response, error = record.group("response"), record.group("response", "error")
    status, end = response.get("status"), response.get("end")
    lines = [_joined(status if status is not None else "no status", _ENDS.get(str(end), end))] if response else []
    if error:
        lines.append(f"{error.get('source')}: {error.get('type')}: {error.get('message')}")
    derived = record.group("derived")
    lines += [f"{name} {value}" for name in ("error_code", "parse_error") if (value := derived.get(name))]
    return lines


def _request(record: _Groups) -> list[str]:
    try:
        data = body(record, "request")
    except NoBody as error:
        return [f"({error})"] if record.group("request") else []
    asked = _json(data)
    found = [f"{turn.role}: {turn.text}" for turn in turns(asked)]
    return (found or [_plain(data, asked)]) + _cut(record, "request")


def _answer(record: _Groups) -> list[str]:
    derived = record.group("derived")
    answer = derived.group("answer")
    alternatives = answer.get("alternatives")
    choices = [answer, *(choice for choice in (alternatives if isinstance(alternatives, list) else []) if isinstance(choice, dict))]
    found = [line for choice in choices for line in _choice(choice)]
    reasons = derived.get("finish_reasons")
    ended = [f"(finished: {', '.join(map(str, reasons))})"] if isinstance(reasons, list) and reasons else []
    if found:
        return [*found, *ended, *_cut(record, "response")]
    try:
        data = body(record, "response")
    except NoBody as error:
        return [f"({error})"] if record.group("response") else []
    return [_plain(data, _json(data)), *ended, *_cut(record, "response")]


def _choice(choice: dict[str, Any]) -> Iterator[str]:
    for name, before in (("reasoning", "(thinks) "), ("text", ""), ("refusal", "(refuses) ")):
        if choice.get(name):
            yield f"{before}{choice[name]}"
    calls = choice.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        if isinstance(call, dict):
            yield f"→ {call.get('name')}({call.get('arguments') or ''})"


def _tokens(record: _Groups) -> list[str]:
    usage = record.group("derived", "usage")
    if not usage:
        return []
    source = str(usage.get("source"))
    if usage.get("total_tokens") is None:
        return [_joined("unknown", usage.get("reason"))]
    counted = [(name, usage[key]) for key, name in _BUCKETS.items() if usage.get(key) or key in {"input_tokens", "output_tokens"}]
    table = _columns([(name, f"{count:,}") for name, count in [*counted, ("total", usage["total_tokens"])] if isinstance(count, int)])
    return [*table, _joined(_SOURCES.get(source, source), usage.get("method"))]


def _cost(record: _Groups) -> list[str]:
    cost = record.group("derived", "cost")
    if not cost:
        return []
    source = str(cost.get("source"))
    if cost.get("total") is None:
        return [_joined("unknown", cost.get("reason"))]
    shown = {name: cost.get(name) for name in ("input", "output", "tools", "total") if name != "tools" or cost.get(name) not in {None, "0"}}
    amounts = [f"{name:<6}  {_dollars(value)}" for name, value in shown.items()]
    rates = ", ".join(f"{_BUCKETS.get(name, name)} ${rate}" for name, rate in cost.group("rates").items())
    origin = _joined(
        _SOURCES.get(source, source), cost.get("price_version"), cost.get("price_date"), cost.get("priced_as"), cost.get("variant")
    )
    return [*amounts, origin, f"per million tokens: {rates}" if rates else ""]


def _repriced(row: Row) -> list[str]:
    if row.get("repriced_at") is None:
        return []
    source = str(row["cost_source"])
    shown = f"now {money(row['cost_total'])}" if row["cost_total"] is not None else "now unknown"
    by = _joined(_SOURCES.get(source, source), row["cost_reason"], row["price_version"], row["price_variant"])
    return [_joined(shown, by), f"repriced {row['repriced_at']:%Y-%m-%d %H:%M:%S}Z, above as recorded"]


def _timing(record: _Groups) -> list[str]:
    timing, derived = record.group("timing"), record.group("derived")
    marks = {
        "to upstream": timing.get("upstream_started_ms"),
        "answer's head": timing.get("upstream_headers_ms"),
        "first byte": timing.get("first_byte_ms"),
        "first token": derived.get("first_token_ms"),
        "last byte": timing.get("last_byte_ms"),
        "whole call": timing.get("duration_ms"),
        "our share": timing.get("proxy_ms"),
    }
    lines = _columns([(name, f"{value:,.1f} ms") for name, value in marks.items() if isinstance(value, int | float)])
    speed, chunks = derived.get("tokens_per_second"), timing.get("chunks")
    parts = [
        f"{speed:.1f} tokens/s" if isinstance(speed, int | float) else None,
        f"{chunks} chunk{'' if chunks == 1 else 's'}" if chunks else None,
    ]
    return [*lines, _joined(*parts)]


def _stored(record: _Groups) -> list[str]:
    lake = record.group("lake")
    return [
        _joined(lake.get("log") and f"{lake['log']} at {lake.get('offset')}", lake.get("ingested_at")),
        _joined(
            record.get("hostname"), record.get("source") and f"spool {record['source']} at {record.get('sequence')}", record.get("version")
        ),
    ]


def _absence(record: _Groups, side: Side) -> str:
    policy, size = record.group("policy"), _bytes(record, side)
    for name, why in (("omitted", "left out as the caller asked"), ("dropped", "not kept: the proxy had no space for it")):
        sides = policy.get(name)
        if isinstance(sides, list) and side in sides:
            return f"the {side}'s body was {why}"
    return f"the {side} has no body" if not size else f"the {side}'s body of {size:,} bytes is not in the record"


def _bytes(record: _Groups, side: Side) -> int:
    found = record.group(side).get("body_bytes")
    return found if isinstance(found, int) else 0


def _cut(record: _Groups, side: Side) -> list[str]:
    found = record.group(side)
    return [f"(cut: the record holds the first part of {_bytes(record, side):,} bytes)"] if found.get("truncated") else []


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _plain(data: bytes, parsed: Any) -> str:
    if parsed is not None:
        return content(orjson.dumps(parsed, option=orjson.OPT_INDENT_2).decode())
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"({len(data):,} bytes that are no text)"


def _dollars(value: Any) -> str:
    """In full: a record is the place where a cost can be checked."""
    return "?" if value is None else f"${value}"


def _joined(*parts: Any, separator: str = " · ") -> str:
    return separator.join(str(part) for part in parts if part is not None and part != "")


def _named(values: dict[str, Any]) -> str:
    return _joined(*(f"{name} {value}" for name, value in values.items() if value))


def _columns(pairs: list[tuple[str, str]]) -> list[str]:
    names, values = (max((len(pair[i]) for pair in pairs), default=0) for i in (0, 1))
    return [f"{name:<{names}}  {value:>{values}}" for name, value in pairs]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines as they are, long ones folded; control characters never reach the terminal."""
    lines = []
    for line in text.expandtabs(4).split("\n") if text else []:
        lines += textwrap.wrap(printable(line), width, replace_whitespace=False) or [""]
    return lines


def _paint(text: str, code: str, colored: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colored else text
