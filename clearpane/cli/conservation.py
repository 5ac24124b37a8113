"""Conservation: every sequence that a spool gave is found once: in the lake, on its way, dropped and said to be, or missing. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from clearpane.contract.identifiers import spool_born_at
from proxy.shipper.ranges import Ranges

NAMED_MAX = 1000  # missing ids, and ranges of sequences, that are named; all are counted
_UNKNOWN = "?"
# Far more than one life of a worker leaves open; a sequence that is not ours must not be counted up to.
_HOLE_MAX = 10_000_000


@dataclass(slots=True)
class Evidence:
    """What one spool, or the account that it left, says. `end`: sequences [0, end) had been given; None: nobody knows where it ended.

    What it gave since is not judged: of that only what has arrived is known.
    """

    spool: str
    end: int | None = None
    settled: Ranges = field(default_factory=Ranges)  # acknowledged or lost
    pending: Ranges = field(default_factory=Ranges)  # still to be delivered, calls that run included
    lost: Mapping[str, Ranges] = field(default_factory=dict)  # by reason
    names: Mapping[int, tuple[str | None, str | None]] = field(default_factory=dict)  # request id and received_at, as far as known


@dataclass(slots=True)
class Seen:
    """What lake and topic have of one spool."""

    lake: Ranges = field(default_factory=Ranges)
    topic: Ranges = field(default_factory=Ranges)
    first: int | None = None  # the lowest sequence that counts, where older ones are out of sight
    hours: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    edges: dict[str, int] = field(default_factory=dict)  # the first sequence of each hour, for those without a time
    doubled: list[tuple[int, str | None]] = field(default_factory=list)

    def add(self, sequence: int, request_id: str | None, received_at: datetime | None, end: str | None) -> None:
        """A record of the lake."""
        if sequence in self.lake:
            self.doubled.append((sequence, request_id))
            return
        self.lake.add(sequence)
        self.first = sequence if self.first is None else min(self.first, sequence)
        hour = hour_of(received_at)
        self.hours[hour]["interrupted" if end == "interrupted" else "completed"] += 1
        self.edges[hour] = min(sequence, self.edges.get(hour, sequence))

    def hour_at(self, sequence: int) -> str:
        """Of a sequence that states no time: sequences are given in order of time, so its neighbours tell."""
        below = (hour for hour, first in self.edges.items() if first <= sequence)
        return max(below, default=min(self.edges, default=_UNKNOWN))


@dataclass(slots=True)
class Missing:
    """Sequences [first, last] of a spool that nothing explains. `why`: what is known of them."""

    spool: str
    first: int
    last: int
    hour: str
    why: str
    request_ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Balance:
    """`rows` by spool and hour: admitted = completed + interrupted + in_flight + dropped (by reason) + missing."""

    rows: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    doubled: list[tuple[str, int, str | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        return not self.missing and not self.doubled

    @property
    def totals(self) -> Counter[str]:
        return sum(self.rows.values(), Counter[str]())

    def to_dict(self) -> dict[str, Any]:
        rows = [{"spool": spool, "hour": hour, **_columns(row)} for (spool, hour), row in sorted(self.rows.items())]
        return {
            "balanced": self.balanced,
            **_columns(self.totals),
            "rows": rows,
            "missing_ranges": [
                {"spool": m.spool, "first": m.first, "last": m.last, "hour": m.hour, "why": m.why, "request_ids": m.request_ids}
                for m in self.missing[:NAMED_MAX]
            ],
            "doubled": [{"spool": spool, "sequence": sequence, "request_id": name} for spool, sequence, name in self.doubled[:NAMED_MAX]],
            "notes": self.notes,
        }


def balance(evidence: Mapping[str, Evidence], seen: Mapping[str, Seen], begin: datetime | None) -> Balance:
    """`begin`: from when on the lake was looked at. Of a spool that is older, what came before its first record in sight is not judged."""
    found = Balance()
    for spool in sorted({*evidence, *seen}):
        partial = begin is not None and _is_older(spool, begin)
        _weigh(found, evidence.get(spool, Evidence(spool)), seen.get(spool, Seen()), partial=partial)
    return found


def _is_older(spool: str, begin: datetime) -> bool:
    """Whether it may have had calls before; so may one of which nobody knows when it was begun."""
    try:
        return spool_born_at(spool) < begin
    except ValueError:
        return True


def _weigh(found: Balance, stated: Evidence, seen: Seen, *, partial: bool) -> None:
    end = max(stated.end or 0, seen.lake.end, seen.topic.end)
    judged = end if stated.end is None else stated.end
    begin = 0 if not partial else judged if seen.first is None else min(seen.first, judged)
    for hour, counts in seen.hours.items():
        _row(found, stated.spool, hour).update(counts)
    for first, last in [*holes(seen.lake, 0, begin), *holes(seen.lake, judged, end)]:
        # Not judged, but what is on its way is counted.
        for sequence in _within(stated.pending, first, last) | _within(seen.topic, first, last):
            _explain(found, stated, seen, sequence)
    for first, last in holes(seen.lake, begin, judged):
        for sequence in range(first, min(last, first + _HOLE_MAX) + 1):
            _explain(found, stated, seen, sequence)
        if first + _HOLE_MAX < last:
            found.notes.append(f"spool {stated.spool}: sequences {first + _HOLE_MAX + 1} to {last} are missing too: no spool gives so many")
    found.doubled += [(stated.spool, sequence, name) for sequence, name in seen.doubled]


def _explain(found: Balance, stated: Evidence, seen: Seen, sequence: int) -> None:
    """One sequence that the lake does not have."""
    name, received_at = stated.names.get(sequence, (None, None))
    hour = _hour_of_text(received_at) or seen.hour_at(sequence)
    row = _row(found, stated.spool, hour)
    if sequence in seen.topic:
        row["in_flight"] += 1
        return
    if sequence in stated.pending:
        row["in_flight"] += 1
        return
    reason = next((reason for reason, ranges in stated.lost.items() if sequence in ranges), None)
    if reason is not None:
        row[f"dropped {reason}"] += 1
        return
    row["missing"] += 1
    _miss(found, stated, sequence, hour, name)


def _miss(found: Balance, stated: Evidence, sequence: int, hour: str, name: str | None) -> None:
    if sequence in stated.settled:
        why = "was acknowledged, and is neither in the lake nor, as far as was looked, in the topic"
    elif stated.end is None:
        why = "a hole among the spool's records; the spool left no account in these data folders"
    else:
        why = "was given, and left no trace in the spool"
    before = found.missing[-1] if found.missing else None
    if before is None or (before.spool, before.last + 1, before.hour, before.why) != (stated.spool, sequence, hour, why):
        before = Missing(stated.spool, sequence, sequence, hour, why)
        found.missing.append(before)
    before.last = sequence
    if name is not None and len(before.request_ids) < NAMED_MAX:
        before.request_ids.append(name)


def holes(held: Ranges, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """What of [begin, end) is not held, as inclusive ranges."""
    at = begin
    for first, last in held.pairs():
        if at < first:
            yield at, min(first, end) - 1
        at = max(at, last + 1)
    if at < end:
        yield at, end - 1


def hour_of(moment: datetime | None) -> str:
    return _UNKNOWN if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H}"


def _hour_of_text(stated: str | None) -> str | None:
    try:
        return hour_of(datetime.fromisoformat(stated)) if stated else None
    except ValueError:
        return None


def _row(found: Balance, spool: str, hour: str) -> Counter[str]:
    return found.rows.setdefault((spool, hour), Counter())


def _within(ranges: Ranges, first: int, last: int) -> set[int]:
    return {number for a, b in ranges.pairs() for number in range(max(a, first), min(b, last) + 1)}


def _columns(row: Counter[str]) -> dict[str, Any]:
    dropped = {name.removeprefix("dropped "): count for name, count in sorted(row.items()) if name.startswith("dropped ")}
    plain = {name: row[name] for name in ("completed", "interrupted", "in_flight", "missing")}
    return {"admitted": sum(plain.values()) + sum(dropped.values()), **plain, "dropped": dropped}


def lines(found: Balance, shown_max: int) -> Iterable[str]:
    """For people."""
    names = ("admitted", "completed", "interrupted", "in_flight", "dropped", "missing")
    header = ["SPOOL", "HOUR", *(name.upper().replace("_", " ") for name in names)]
    rows = [[spool, hour, *_cells(row, names)] for (spool, hour), row in sorted(found.rows.items())]
    shown = rows[-shown_max:]
    total = ["all", "", *_cells(found.totals, names)]
    widths = [max(map(len, column)) for column in zip(header, *shown, total, strict=True)]
    if len(rows) > len(shown):
        yield f"the last {len(shown)} of {len(rows)} hours; --json has all"
    for row in (header, *shown, total):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    reasons = _columns(found.totals)["dropped"]
    yield from (f"dropped ({reason}): {count:,}" for reason, count in reasons.items())
    for one in found.missing[:shown_max]:
        where = f"{one.first}" if one.first == one.last else f"{one.first} to {one.last}"
        yield f"missing: spool {one.spool}, sequence {where} ({one.hour}): {one.why}"
        yield from (f"    call {name}" for name in one.request_ids[:shown_max])
    for spool, sequence, name in found.doubled[:shown_max]:
        yield f"doubled: spool {spool}, sequence {sequence}, call {name}"
    yield from found.notes
    yield "balanced" if found.balanced else f"{found.totals['missing']:,} missing, {len(found.doubled):,} doubled"


def _cells(row: Counter[str], names: Iterable[str]) -> list[str]:
    columns = _columns(row)
    return [f"{sum(columns[name].values()) if name == 'dropped' else columns[name]:,}" for name in names]
