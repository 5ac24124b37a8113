"""A record -> its flat row in the index: the columns of clearpane.contract.records, each in the form it names."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from clearpane.contract.records import COLUMNS, Kind, Record, Row
from consumer.derive.untrusted import mapping

# Column -> where it stands in a record; a column not named here is found by its own name.
_PATHS: dict[str, tuple[str, ...]] = {
    "received_at": ("timing", "received_at"),
    "ingested_at": ("lake", "ingested_at"),
    "status": ("response", "status"),
    "end": ("response", "end"),
    "error_source": ("response", "error", "source"),
    "error_type": ("response", "error", "type"),
    **{name: ("target", name) for name in ("provider", "upstream", "operation")},
    **{
        name: ("derived", name)
        for name in ("error_code", "model", "model_requested", "model_version", "streamed", "first_token_ms", "tokens_per_second")
    },
    **{name: ("derived", name) for name in ("response_id", "parse_error")},
    **{
        name: ("caller", name)
        for name in ("user_id", "session_id", "session_path", "session_name", "prompt_id", "properties", "key_fingerprint", "user_agent")
    },
    "trace_id": ("trace", "trace_id"),
    **{name: ("derived", "usage", name) for name in COLUMNS if name.endswith("_tokens")},
    "usage_source": ("derived", "usage", "source"),
    "cost_input": ("derived", "cost", "input"),
    "cost_output": ("derived", "cost", "output"),
    "cost_total": ("derived", "cost", "total"),
    "cost_source": ("derived", "cost", "source"),
    "cost_reason": ("derived", "cost", "reason"),
    "price_version": ("derived", "cost", "price_version"),
    "price_variant": ("derived", "cost", "variant"),
    **{name: ("timing", name) for name in ("duration_ms", "first_byte_ms", "proxy_ms")},
    "request_bytes": ("request", "body_bytes"),
    "response_bytes": ("response", "body_bytes"),
    **{name: ("lake", name) for name in ("log", "offset", "object", "object_offset", "object_length")},
}


def row(record: Record) -> Row:
    """Every column is there; null where the record does not say. Times are aware datetimes (UTC), decimals Decimal.

    `object`, `object_offset` and `object_length` are the writer's to add, unless they stand in `record["lake"]`.
    Never raises: a value of the wrong form is null.
    """
    groups: dict[tuple[str, ...], Record] = {(): record}
    for path in _GROUPS:
        groups[path] = mapping(groups[path[:-1]].get(path[-1]))
    found = {name: form(groups[group].get(key)) for name, form, group, key in _PLAN}
    found["finish_reason"] = _first(mapping(record.get("derived")).get("finish_reasons"))
    return found


def _first(value: Any) -> str | None:
    return _text(value[0]) if isinstance(value, list) and value else None


def _text(value: Any) -> str | None:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _decimal(value: Any) -> Decimal | None:
    try:
        found = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() and abs(found) < 10**20 else None


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if found is None:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _texts(value: Any) -> list[str] | None:
    return [text for each in value if (text := _text(each)) is not None] if isinstance(value, list) else None


def _map(value: Any) -> dict[str, str] | None:
    if not isinstance(value, dict):
        return None
    pairs = ((_text(name), _text(each)) for name, each in value.items())
    return {name: each for name, each in pairs if name is not None and each is not None}


_FORMS: dict[Kind, Callable[[Any], Any]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "decimal": _decimal,
    "flag": _flag,
    "time": _time,
    "texts": _texts,
    "map": _map,
}

# Column, its form, its group in the record, its key there: each group is looked up once for all its columns.
_PLAN = [(name, _FORMS[kind], path[:-1], path[-1]) for name, kind in COLUMNS.items() for path in [_PATHS.get(name, (name,))]]
_GROUPS = sorted({group[:end] for _, _, group, _ in _PLAN for end in range(1, len(group) + 1)}, key=len)
