"""One record by its id: where it stands, and its line by one range read."""

import re
from datetime import UTC, datetime, timedelta

from clearpane.contract.members import open_member
from clearpane.contract.records import Row
from clearpane.store import Store
from reader.filter import Filter
from reader.lake import EARLY, Hours, hours, objects, whole_hour
from reader.rows import fetched

# 8 hexadecimal digits of a UUIDv7 say when it was born to within 65.5 seconds.
PREFIX_MIN = 8
MATCHES_MAX = 10

_TIME_DIGITS = 12
_PARTS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))


class BadId(ValueError):
    """Why this cannot be the id of a call."""


def id_prefix(text: str) -> str:
    """An id or the beginning of one as ids are written, from what a person gives. Raises BadId."""
    digits = text.strip().lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits) or (len(digits) > _TIME_DIGITS and digits[_TIME_DIGITS] != "7"):
        raise BadId(f"{text!r} is no id of a call: give one as `clearpane calls` shows it, or the Clearpane-Id of the answer")
    if len(digits) < PREFIX_MIN:
        raise BadId(f"{text!r} is too short: give at least {PREFIX_MIN} hexadecimal digits")
    return "-".join(part for start, end in _PARTS if (part := digits[start:end]))


def born_between(prefix: str) -> tuple[datetime, datetime]:
    """When ids that begin with `prefix` (from id_prefix()) were made, to the millisecond. Raises BadId."""
    digits = prefix.replace("-", "")[:_TIME_DIGITS]
    try:
        first, last = (
            datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=int(digits.ljust(_TIME_DIGITS, filler), 16)) for filler in "0f"
        )
        _ = (first - EARLY, last + EARLY)
    except OverflowError:
        raise BadId(f"{prefix} is no id of a call: its time is beyond the calendar") from None
    return first, last


async def find(store: Store, prefix: str) -> list[Row]:
    """The rows whose id begins with `prefix` (from id_prefix()), at most MATCHES_MAX. Raises BadId, StoreError, DamagedIndex.

    Looks where the call's hour is, then in all later ones (it may have waited in a spool), then EARLY hours back
    (its object may have been begun long before): the first look that finds anything is the last.
    """
    first, last = born_between(prefix)
    near = Hours(first=whole_hour(first - timedelta(minutes=1)), last=whole_hour(last) + timedelta(hours=1))
    for within in (near, Hours(first=near.last), Hours(first=near.first and near.first - EARLY, last=near.first)):
        if found := await _matches(store, prefix, within):
            return found
    return []


async def open_record(store: Store, row: Row) -> bytes:
    """The stored line, newline included, by one range read. Raises NotAnObject, StoreError."""
    return open_member(await store.get_range(row["object"], row["object_offset"], row["object_length"]))


async def _matches(store: Store, prefix: str, within: Hours) -> list[Row]:
    """A look ends with the hour that finds something: ids that begin alike were born together and stand near."""
    async for hour in hours(store, "index", within):
        batches = fetched(store, await objects(store, "index", hour), Filter(id_prefix=prefix))
        if found := [row async for batch in batches for row in batch]:
            return found[:MATCHES_MAX]
    return []
