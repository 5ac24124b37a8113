"""Access to JSON that somebody else wrote: every getter answers for any value, and says what it will not read."""

import json
from typing import Any

import orjson

Mapping = dict[str, Any]

# No real call comes near it, and a sum of leaves still fits a 64-bit column.
COUNT_MAX = 10**12


class Malformed(ValueError):
    """Bytes or a value that cannot be what it should be. The text goes onto the record: it holds no content."""


def loads(data: bytes) -> Any:
    """The JSON value in `data`. Raises Malformed, whatever the bytes are."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if b"\\u" in data:
            return _loads_lone_surrogates(data, error)
        raise Malformed(_reason(error)) from None


def _loads_lone_surrogates(data: bytes, first: orjson.JSONDecodeError) -> Any:
    """Some servers cut an emoji in half between two chunks: valid JSON to all but strict parsers."""
    try:
        plain = json.dumps(json.loads(data), ensure_ascii=False)
        return orjson.loads(plain.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise Malformed(_reason(first)) from None


def _reason(error: orjson.JSONDecodeError) -> str:
    return f"not JSON: {error.msg.partition(':')[0]} at byte {error.pos}"


def mapping(value: Any) -> Mapping:
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def mappings(value: Any) -> list[Mapping]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: Any) -> str | None:
    """A text that is not empty."""
    return value if isinstance(value, str) and value else None


def short(value: Any, chars_max: int = 256) -> str | None:
    """A name: a model, a code, a finish reason. Numbers are taken as their text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return value[:chars_max] if isinstance(value, str) and value else None


def count(source: Mapping, name: str) -> int | None:
    """A number of tokens; null and absent are None. Raises Malformed for what cannot be a number of tokens."""
    value = source.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNT_MAX:
        raise Malformed(f"usage: {name} is not a number of tokens")
    return value


def index(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def dumps(value: Any) -> str:
    """JSON text of a value that came from `loads`; empty when it is nested too deep to be written again."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""


def storable(value: Mapping | None, *, bytes_max: int = 16 << 10, nesting: int = 16) -> Mapping | None:
    """A block as it was given, if a record can hold it: not too large, and nested so that it can be written inside one."""
    if value is None:
        return None
    nested: Any = value
    for _ in range(nesting):
        nested = [nested]
    try:
        size = len(orjson.dumps(nested))
    except orjson.JSONEncodeError:
        return {"omitted": "nested too deep"}
    return value if size <= bytes_max else {"omitted": "too large"}
