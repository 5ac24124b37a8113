"""The layout of the lake: record -> object key, and back.

    calls/dt=2026-11-21/hour=02/<log>-<start:020d>.jsonl.gz      the truth: full records
    index/dt=2026-11-21/hour=02/<log>-<start:020d>.parquet       derived columns and a pointer into calls/
    heads/<log>.json                                             where the log's tail was last seen (a hint)

Every part of a key is a function of the first record of the object (its place in the log and its
immutable log timestamp), never of the writer's clock: two writers of the same records meet at the same key.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Kind = Literal["calls", "index"]
_SUFFIX: dict[Kind, str] = {"calls": "jsonl.gz", "index": "parquet"}
_KEY = re.compile(
    r"(?P<kind>calls|index)/dt=(?P<day>\d{4}-\d{2}-\d{2})/hour=(?P<hour>\d{2})/"
    r"(?P<log>[kh]-[A-Za-z0-9_.%-]+)-(?P<start>\d{20})\.(?P<suffix>jsonl\.gz|parquet)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an object stands: its log, the first offset it covers, and the hour of its first record."""

    log: str
    start: int
    hour: datetime  # UTC, whole hour

    def key(self, kind: Kind) -> str:
        return f"{hour_prefix(kind, self.hour)}{self.log}-{self.start:020d}.{_SUFFIX[kind]}"


def place(log: str, start: int, timestamp_ms: int) -> Place:
    """`timestamp_ms` is the first record's log timestamp (Unix milliseconds)."""
    moment = datetime.fromtimestamp(timestamp_ms / 1000, tz=UTC)
    return Place(log=log, start=start, hour=moment.replace(minute=0, second=0, microsecond=0))


def parse_key(key: str) -> tuple[Kind, Place] | None:
    """The facts in a key, or None if it is not one of ours."""
    found = _KEY.fullmatch(key)
    if found is None or found["suffix"] != _SUFFIX["calls" if found["kind"] == "calls" else "index"]:
        return None
    try:
        hour = datetime.fromisoformat(f"{found['day']}T{found['hour']}:00:00+00:00")
    except ValueError:
        return None
    kind: Kind = "calls" if found["kind"] == "calls" else "index"
    return kind, Place(log=found["log"], start=int(found["start"]), hour=hour)


def hour_prefix(kind: Kind, hour: datetime) -> str:
    return f"{kind}/dt={hour:%Y-%m-%d}/hour={hour:%H}/"


def hours_between(first: datetime, last: datetime) -> list[datetime]:
    """Every whole hour (UTC) that [first, last] touches, in order."""
    hour = first.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    hours = []
    while hour <= last:
        hours.append(hour)
        hour += timedelta(hours=1)
    return hours


def head_key(log: str) -> str:
    return f"heads/{log}.json"
