"""Space: what is kept when room grows scarce, and the account of what was not. Pure."""

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import Enum

import orjson

from clearpane.contract.envelope import Facts

# Why something was dropped. `space`: the spool or its disk is full; `queue`: the writer thread is behind;
# `disk_error`: the disk refuses.
REASONS = ("space", "queue", "disk_error")
# Above it a gap is stated more coarsely: neighbouring ranges become one.
_RANGES_MAX = 4096


class Rung(Enum):
    KEEP = "keep"
    BARE = "bare"  # facts without bodies
    DROP = "drop"


def rung(used: int, limit: int, size: int, bare_size: int) -> Rung:
    """Sizes in bytes: with bodies, and without. Bodies are kept up to 80 % of the limit, facts up to all of it."""
    has_bodies = size > bare_size
    if used + size <= (limit * 4 // 5 if has_bodies else limit):
        return Rung.KEEP
    return Rung.BARE if has_bodies and used + bare_size <= limit else Rung.DROP


def sides_of(request: bytes, response: bytes) -> tuple[str, ...]:
    return tuple(name for name, body in (("request", request), ("response", response)) if body)


def without_bodies(facts: bytes, sides: tuple[str, ...]) -> bytes:
    """The same facts with `policy.dropped` stating the sides. Facts that are not an object stay as they are."""
    try:
        decoded: Facts = orjson.loads(facts)
        policy = decoded.setdefault("policy", {})
        policy["dropped"] = [*policy.get("dropped", []), *(side for side in sides if side not in policy.get("dropped", []))]
        return orjson.dumps(decoded)
    except (ValueError, TypeError, AttributeError):
        return facts


def _zero() -> dict[str, int]:
    return dict.fromkeys(REASONS, 0)


@dataclass(slots=True)
class SpoolCounters:
    """What went in and what became of it. `completed = written_records + sum(dropped_records) + those in the queue`.

    Every number has one writing thread, so it needs no lock: `queue` and the first three are the caller's,
    all others the spool thread's.
    """

    admitted: int = 0
    started: int = 0
    completed: int = 0
    written_records: int = 0
    written_frames: int = 0
    written_bytes: int = 0
    dropped_records: dict[str, int] = field(default_factory=_zero)
    dropped_bodies: dict[str, int] = field(default_factory=_zero)  # records that lost theirs
    dropped_marks: dict[str, int] = field(default_factory=_zero)  # ADMITTED and STARTED
    gaps: int = 0
    disk_errors: int = 0
    disk_bytes: int = 0


class Gap:
    """Sequences whose records were dropped for one reason, as ranges."""

    def __init__(self) -> None:
        self.count = 0
        self.ranges: list[tuple[int, int]] = []  # inclusive, sorted, never touching

    def add(self, sequence: int) -> None:
        self.count += 1
        self._insert(sequence, sequence)

    def add_range(self, first: int, last: int) -> None:
        """Inclusive."""
        self.count += last - first + 1
        self._insert(first, last)

    def merge(self, other: "Gap") -> None:
        self.count += other.count
        for first, last in other.ranges:
            self._insert(first, last)

    def payload(self, reason: str) -> bytes:
        """JSON: `from` and `to` (inclusive), `count` of records, `reason`, and `sequences` as inclusive ranges."""
        first, last = self.span
        return orjson.dumps({"from": first, "to": last, "count": self.count, "reason": reason, "sequences": self.ranges})

    @property
    def span(self) -> tuple[int, int]:
        return self.ranges[0][0], self.ranges[-1][1]

    def _insert(self, first: int, last: int) -> None:
        """Joins all ranges that touch or overlap [first, last]."""
        ranges = self.ranges
        low = bisect_left(ranges, first - 1, key=lambda found: found[1])
        high = low
        while high < len(ranges) and ranges[high][0] <= last + 1:
            first, last = min(first, ranges[high][0]), max(last, ranges[high][1])
            high += 1
        ranges[low:high] = [(first, last)]
        if len(ranges) > _RANGES_MAX:
            ranges[0:2] = [(ranges[0][0], ranges[1][1])]
