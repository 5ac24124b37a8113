"""The layout of the lake: record -> object key, and back.

    calls/dt=2026-11-21/hour=02/<log>-<start:020d>.jsonl.gz      the truth: full records
    index/dt=2026-11-21/hour=02/<log>-<start:020d>.parquet       derived columns and a pointer into calls/
    index/dt=.../hour=02/<log>-<start:020d>-<last:020d>.parquet  of all objects of the hour and log from start to last
    pruned/<log>/<end:020d>.json                                 up to where a log was deleted on purpose
    heads/<log>.json                                             where the log's tail was last seen (a hint)

Every part of a key is a function of the first record of the object (its place in the log and its
immutable log timestamp), never of the writer's clock: two writers of the same records meet at the same key.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

import orjson

Kind = Literal["calls", "index"]
_SUFFIX: dict[Kind, str] = {"calls": "jsonl.gz", "index": "parquet"}
_KEY = re.compile(
    r"(?P<kind>calls|index)/dt=(?P<day>\d{4}-\d{2}-\d{2})/hour=(?P<hour>\d{2})/"
    r"(?P<log>[kh]-[A-Za-z0-9_.%-]+?)-(?P<start>\d{20})(-(?P<last>\d{20}))?\.(?P<suffix>jsonl\.gz|parquet)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an object stands: its log, the first offset it covers, and the hour of its first record."""

    log: str
    start: int
    hour: datetime  # UTC, whole hour
    last: int | None = None  # of an index file that stands for several objects: the start of the last one

    def key(self, kind: Kind) -> str:
        last = "" if self.last is None else f"-{self.last:020d}"
        return f"{hour_prefix(kind, self.hour)}{self.log}-{self.start:020d}{last}.{_SUFFIX[kind]}"

    def covers(self, other: "Place") -> bool:
        """Whether this index file makes the other one superfluous: its rows are all in here, and these are the ones that count."""
        if self.last is None or self == other or (self.log, self.hour) != (other.log, other.hour):
            return False
        return self.start <= other.start and (other.start if other.last is None else other.last) <= self.last


def place(log: str, start: int, timestamp_ms: int) -> Place:
    """`timestamp_ms` is the first record's log timestamp (Unix milliseconds)."""
    moment = datetime.fromtimestamp(timestamp_ms / 1000, tz=UTC)
    return Place(log=log, start=start, hour=moment.replace(minute=0, second=0, microsecond=0))


def parse_key(key: str) -> tuple[Kind, Place] | None:
    """The facts in a key, or None if it is not one of ours."""
    found = _KEY.fullmatch(key)
    if found is None or found["suffix"] != _SUFFIX["calls" if found["kind"] == "calls" else "index"]:
        return None
    if found["last"] is not None and (found["kind"] == "calls" or int(found["last"]) < int(found["start"])):
        return None
    try:
        hour = datetime.fromisoformat(f"{found['day']}T{found['hour']}:00:00+00:00")
    except ValueError:
        return None
    kind: Kind = "calls" if found["kind"] == "calls" else "index"
    last = None if found["last"] is None else int(found["last"])
    return kind, Place(log=found["log"], start=int(found["start"]), hour=hour, last=last)


T = TypeVar("T")


def effective(found: Iterable[tuple[T, Place]]) -> list[T]:
    """Of the index files of one hour those that count, in their order: none that another one covers."""
    pairs = list(found)
    wide: dict[str, list[Place]] = {}
    for _, one in pairs:
        if one.last is not None:
            wide.setdefault(one.log, []).append(one)
    return [what for what, one in pairs if not any(other.covers(one) for other in wide.get(one.log, ()))]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What `heads/<log>.json` states of a log: a hint, but one that was true once. `key`: of its last object."""

    genesis: int
    end: int
    key: str | None = None

    @staticmethod
    def from_json(data: bytes) -> "Head":
        """Raises ValueError for what is no head."""
        try:
            found = orjson.loads(data)
            head = Head(genesis=found["genesis"], end=found["end"], key=found.get("key"))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a head of this version") from error
        if type(head.genesis) is not int or type(head.end) is not int or not 0 <= head.genesis <= head.end:
            raise ValueError("not a head of this version")
        return head


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """All objects of a log below `end` were deleted on purpose. `key` and `sha256` are the last one's; `before`: the hour they stood below.

    Such a mark is written before the first of them is deleted, and the highest `end` counts.
    """

    log: str
    end: int
    key: str
    sha256: str
    before: datetime

    @property
    def mark(self) -> str:
        return f"{pruned_prefix(self.log)}{self.end:020d}.json"

    def to_json(self) -> bytes:
        return orjson.dumps(
            {"log": self.log, "end": self.end, "key": self.key, "sha256": self.sha256, "before": self.before.isoformat(), "version": 1}
        )

    @staticmethod
    def from_json(data: bytes) -> "Pruned":
        """Raises ValueError for anything but what to_json makes."""
        try:
            found = orjson.loads(data)
            before = datetime.fromisoformat(found["before"]).astimezone(UTC)
            mark = Pruned(log=found["log"], end=found["end"], key=found["key"], sha256=found["sha256"], before=before)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError("not a mark of this version") from error
        texts = (mark.log, mark.key, mark.sha256)
        if not all(isinstance(text, str) for text in texts) or type(mark.end) is not int or mark.end < 0:
            raise ValueError("not a mark of this version")
        return mark


def pruned_prefix(log: str) -> str:
    return f"pruned/{log}/"
