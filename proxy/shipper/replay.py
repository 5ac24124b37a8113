"""Replay: a dead spool's records that were delivered once and are wanted again, by the protocol that delivers everything else.

Nothing is sent here. The spool's journal is written anew, as if the fate of those records were in doubt: the shipper then
brings each to Kafka as a further attempt, in the partition of its call, where the consumer drops it if the chain has it; or
by HTTP, behind what the lake has of this spool. What waits for the shipper anyway keeps its path.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from clearpane.contract.identifiers import born_at, partition_of
from proxy.shipper.journal import Entry, Journal
from proxy.shipper.poison import Poison
from proxy.shipper.ranges import Ranges
from proxy.shipper.records import Records, Wanted
from proxy.shipper.survey import Survey, survey
from proxy.shipper.tracker import Call, Tracker
from proxy.shipper.tracker import Path as Way
from proxy.spool import Claim, claim

# A second copy is looked up in the chain from its call's birth on, and no further back than 62 days (consumer/lake/ledger.py).
AGE_MAX = timedelta(days=60)


class NoReplay(Exception):
    """Why nothing was changed: what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lake:
    """What the lake has of this spool: sequences, where its HTTP log ends, and whether any record came by Kafka."""

    held: Ranges
    http_end: int
    by_kafka: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """`partitions`: of the topic, 0 without Kafka."""

    partitions: int
    kafka_record_bytes_max: int
    intake: bool


@dataclass(slots=True)
class Plan:
    """What is done with the spool's records, by sequence."""

    held: int = 0  # the lake has them
    waiting: int = 0  # the shipper delivers them anyway
    to_kafka: list[int] = field(default_factory=list)
    to_http: list[int] = field(default_factory=list)
    too_old: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def again(self) -> int:
        return len(self.to_kafka) + len(self.to_http)


@contextmanager
def claimed(folder: Path) -> Iterator[Claim]:
    """The spool's lock, for as long as its journal is looked at and written. Raises NoReplay."""
    held = claim(folder) if folder.is_dir() else None
    if held is None:
        raise NoReplay(
            f"{folder} is held by its writer or by a shipper: stop `clearpane proxy` (or `up`) on this machine first"
            if folder.is_dir()
            else f"there is no folder {folder}"
        )
    try:
        yield held
    finally:
        held.release()


def plan(folder: Path, lake: Lake, ways: Ways, now: datetime) -> Plan:
    """For a claimed spool. Raises NoReplay, OSError, SpoolDamaged (disk)."""
    if lake.by_kafka and not ways.partitions:
        raise NoReplay("records of this spool came to the lake by Kafka: give --kafka, so that a copy that Kafka still holds is told apart")
    found = survey(folder, names=True, ours=True)
    tracker = found.tracker
    is_numbered = any(call.path is Way.HTTP for call in tracker.calls.values())
    if is_numbered and lake.http_end < tracker.http_end:
        raise NoReplay(
            f"the lake ends at {lake.http_end} for this spool, but {tracker.http_end} records were acknowledged and more are numbered: "
            "is it another lake?"
        )
    if not is_numbered:
        tracker.http_end = tracker.http_next = lake.http_end
    made = Plan()
    chosen = _chosen(found, lake, made)
    ways_of = _Choosing(folder, ways, now, made)
    _decide(tracker, [(call, ways_of.way(call)) for call in chosen], made, ways)
    made.waiting = len(tracker.calls) - made.again
    made.entries = tracker.snapshot()
    return made


def carry_out(folder: Path, made: Plan) -> None:
    """For a claimed spool. Raises OSError; then the journal is as it was."""
    journal = Journal(folder)
    journal.load()
    try:
        journal.rewrite(made.entries)
    finally:
        journal.close()


def _chosen(found: Survey, lake: Lake, made: Plan) -> list[Call]:
    """Calls of which a frame is still there, and that neither the lake has nor the shipper would deliver by itself."""
    tracker = found.tracker
    # Without a journal nobody knows what was sent: all of it is in doubt.
    is_unknown = not tracker.done and not any(call.path for call in tracker.calls.values())
    chosen = []
    for sequence, name in sorted(found.names.items()):
        call = tracker.calls.get(sequence)
        if sequence in lake.held:
            made.held += 1
            if call is not None and call.path is None:
                tracker.settle([call])
        elif name.request_id is not None and (sequence in tracker.done or is_unknown):
            chosen.append(Call(sequence, request_id=name.request_id, place=name.place))
    return chosen


class _Choosing:
    """By which way a record goes again."""

    def __init__(self, folder: Path, ways: Ways, now: datetime, made: Plan) -> None:
        self._ways, self._now, self._made = ways, now, made
        self._records = Records(folder, Poison(folder.parent.parent / "poison"))

    def way(self, call: Call) -> Way | None:
        """None: not at all, and noted in the plan."""
        if self._now - born_at(call.request_id) > AGE_MAX:
            self._made.too_old.append(call.sequence)
            return None
        size = self._size(call)
        if size is None:
            self._made.unreadable.append(call.sequence)
            return None
        # What is too large for Kafka never went there, so no copy of it can be under way.
        is_large = size > self._ways.kafka_record_bytes_max and self._ways.intake
        return Way.HTTP if is_large or not self._ways.partitions else Way.KAFKA

    def _size(self, call: Call) -> int | None:
        """Bytes of the message; 0 for a call without a record: its few facts."""
        if call.place is None:
            return 0
        (message,) = self._records.some([Wanted.of(call, 1)], {}, 1)
        return len(message.data) if message is not None else None


def _decide(tracker: Tracker, chosen: list[tuple[Call, Way | None]], made: Plan, ways: Ways) -> None:
    """As the shipper would have decided, and then heard nothing."""
    again = {call.sequence for call, way in chosen if way is not None}
    tracker.done = Ranges(pair for first, last in tracker.done.pairs() for pair in _without(first, last, again))
    for call, way in chosen:
        if way is None:
            continue
        call.facts = None  # its frames are read again
        tracker.calls[call.sequence] = call
        if way is Way.KAFKA:
            made.to_kafka.append(call.sequence)
            tracker.to_kafka(call, partition_of(call.request_id, ways.partitions))
        else:
            made.to_http.append(call.sequence)
            tracker.to_http(call, call.request_id)


def _without(first: int, last: int, gone: AbstractSet[int]) -> Iterator[tuple[int, int]]:
    """[first, last] in the ranges that are left."""
    begin = first
    for sequence in sorted(number for number in gone if first <= number <= last):
        if begin < sequence:
            yield begin, sequence - 1
        begin = sequence + 1
    if begin <= last:
        yield begin, last
