"""Which records a reader asks for, and the ways people write that down."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation

_AGO = re.compile(r"(\d{1,6})\s*(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_STATUS = re.compile(r"[1-9](\d\d|xx)")


class BadFilter(ValueError):
    """What is wrong with a filter, and what it should look like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """All that is given must hold; None asks for nothing. Times are aware."""

    since: datetime | None = None  # received_at >= since
    until: datetime | None = None  # received_at < until
    user: str | None = None
    session: str | None = None
    model: str | None = None  # as answered or as requested
    provider: str | None = None
    status: str | None = None  # `200`, `4xx`, `error`: see status()
    end: str | None = None
    request_id: str | None = None  # ours or the caller's
    id_prefix: str | None = None  # of ours
    cost_min: Decimal | None = None  # USD; a record of unknown cost is left out
    properties: Mapping[str, str] = field(default_factory=dict)


def moment(text: str, now: datetime) -> datetime:
    """`10m`, `2h`, `3d` before `now` (aware), or ISO 8601; one without an offset is in the zone of `now`. Raises BadFilter."""
    if ago := _AGO.fullmatch(text.strip().lower()):
        try:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        except OverflowError:
            raise BadFilter(f"{text!r} is before all time") from None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadFilter(f"{text!r} is no time: give 2026-11-21, 2026-11-21T10:00, 2026-11-21T10:00Z, or 10m, 2h, 3d ago") from None
    return found if found.tzinfo else found.replace(tzinfo=now.tzinfo)


def status(text: str) -> str:
    """`200`; `4xx`; `error`: no status, 400 or more, or not brought to its end by us or the upstream. Raises BadFilter."""
    if (found := text.strip().lower()) != "error" and not _STATUS.fullmatch(found):
        raise BadFilter(f"{text!r} is no status: give 200, 4xx, 5xx or error")
    return found


def cost(text: str) -> Decimal:
    """USD. Raises BadFilter."""
    try:
        found = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        found = Decimal("NaN")
    # DECIMAL(38, 18) has 20 digits before the point.
    if not found.is_finite() or found < 0 or found >= 10**20:
        raise BadFilter(f"{text!r} is no cost: give dollars, as 0.01")
    return found


def properties(pairs: list[str]) -> dict[str, str]:
    """From `NAME=VALUE` each. Raises BadFilter."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise BadFilter(f"{pair!r} is no property: give NAME=VALUE")
        found[name] = value
    return found
