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
    """What JSON lacks. Raises TypeError for what is not ours."""
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        return utc_text(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def decimal_text(value: Decimal) -> str:
    """Without exponent and trailing zeros: the index pads to 18 places."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def utc_text(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
