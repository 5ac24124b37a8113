"""A row as one line of JSON: exactly the columns of COLUMNS."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from clearpane.contract.records import COLUMNS, Row


def json_line(row: Row) -> bytes:
    """Times are ISO 8601 UTC, decimals strings, the unknown null. Newline included."""
    return orjson.dumps(
        {name: row[name] for name in COLUMNS}, default=plain, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME
    )


def plain(value: Any) -> Any:
    """What JSON lacks as text: decimals, times, and whatever else a query may make."""
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        return utc_text(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def decimal_text(value: Decimal) -> str:
    """Without exponent and trailing zeros: the index pads to 18 places."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def utc_text(value: datetime) -> str:
    """Of an aware time; a naive one keeps its digits, as it has no zone."""
    if value.tzinfo is None:
        return value.isoformat(timespec="microseconds")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
