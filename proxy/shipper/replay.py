"""Replay: a dead spool's records that were delivered once and are wanted again, by the protocol that delivers everything else.

Nothing is sent here. The spool's journal is written anew, as if the fate of those records were in doubt: the shipper then
brings each to Kafka as a further attempt, in the partition of its call, where the consumer drops it if the chain has it; or
by HTTP, behind what the lake has of this spool. What waits for the shipper anyway keeps its path.
"""

import fcntl
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from clearpane.contract.identifiers import born_at, partition_of
from proxy.shipper import LOCK
from proxy.shipper.journal import Entry, Journal
from proxy.shipper.poison import Poison
from proxy.shipper.ranges import Ranges
from proxy.shipper.records import Records, Wanted
from proxy.shipper.survey import Survey, survey
from proxy.shipper.tracker import Call, Tracker
from proxy.shipper.tracker import Path as Way
from proxy.spool import REASONS, Claim, claim

# A second copy is looked up in the chain from its call's birth on, and no further back than 62 days (consumer/lake/ledger.py).
AGE_MAX = timedelta(days=60)
# Records that are read in one go, for their size.
_SIZED_MAX = 1000
_SIZED_BYTES_MAX = 8 << 20


class NoReplay(Exception):
    """Why nothing was changed: what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lake:
    """What the lake has of this spool: sequences, where its HTTP log ends by all that says so, and whether any record came by Kafka."""

    held: Ranges
    http_end: int
    by_kafka: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """`partitions`: of the topic, 0 without Kafka. `never_kafka`: a person says that nothing of this spool was ever sent to Kafka."""

    partitions: int
    kafka_record_bytes_max: int
    intake: bool
    never_kafka: bool = False


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
    """The spool's lock and that of its data folder's shipper, for as long as its journal is looked at and written. Raises NoReplay.

    A shipper that follows a living spool has no lock on it, and goes on with what it remembers when the writer dies.
    """
    if not folder.is_dir():
        raise NoReplay(f"there is no folder {folder}")
    with _in_place_of_the_shipper(folder):
        held = claim(folder)
        if held is None:
            raise _held(folder)
        try:
            yield held
        finally:
            held.release()


@contextmanager
def _in_place_of_the_shipper(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder.parent.parent / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(folder) from error
        yield
    finally:
        os.close(descriptor)


def _held(folder: Path) -> NoReplay:
    return NoReplay(f"{folder} is held by its writer or by a shipper: stop `clearpane proxy` (or `up`) on this machine first")


def plan(folder: Path, lake: Lake, ways: Ways, now: datetime) -> Plan:
    """For a claimed spool. Raises NoReplay, OSError, SpoolDamaged (disk)."""
    found = survey(folder, names=True, ours=True)
    tracker = found.tracker
    if not ways.partitions:
        _check_kafka(tracker, lake, never=ways.never_kafka)
    if any(call.path is Way.HTTP for call in tracker.calls.values()):
        _check_end(tracker, lake.http_end)
    else:
        tracker.http_end = tracker.http_next = lake.http_end
    made = Plan()
    chosen = _chosen(found, lake, made)
    _decide(tracker, _Choosing(folder, ways, now, made).ways(chosen), made, ways)
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


def _check_kafka(tracker: Tracker, lake: Lake, *, never: bool) -> None:
    """By HTTP goes only what no copy can lie of in the topic, or be under way from there. Raises NoReplay."""
    if lake.by_kafka:
        raise NoReplay("records of this spool came to the lake by Kafka: give --kafka, so that a copy that Kafka still holds is told apart")
    if (count := _acknowledged_by_kafka(tracker)) > 0:
        raise NoReplay(f"Kafka acknowledged {count:,} records of this spool, which may still lie in the topic: give --kafka")
    if _is_unknown(tracker) and not never:
        raise NoReplay(
            "no journal says what was sent of this spool, so it may lie in the topic: give --kafka, "
            "or --never-kafka if its proxy never had one"
        )


def _acknowledged_by_kafka(tracker: Tracker) -> int:
    """What is settled, and neither lost by the shipper nor acknowledged by the intake."""
    given_up = (pair for reason, found in tracker.lost_for.items() if reason not in REASONS for pair in found.pairs())
    lost = sum(number in tracker.done for first, last in given_up for number in range(first, last + 1))
    return tracker.done.count - lost - tracker.http_end


def _check_end(tracker: Tracker, end: int) -> None:
    """Records that have a number keep it, so the lake must end among them. Raises NoReplay."""
    if tracker.http_end <= end <= tracker.http_next:
        return
    raise NoReplay(
        f"the lake ends at {end} for this spool, but {tracker.http_end} records were acknowledged and {tracker.http_next} are numbered: "
        "is it another lake, or an older copy of the spool? If the lake is right, move journal/ out of the spool's folder: then all that "
        "the lake does not have counts as in doubt"
    )


def _is_unknown(tracker: Tracker) -> bool:
    """Without a journal nobody knows what was sent: all of it is in doubt."""
    return not tracker.done and not any(call.path for call in tracker.calls.values())


def _chosen(found: Survey, lake: Lake, made: Plan) -> list[Call]:
    """Calls of which a frame is still there, and that neither the lake has nor the shipper would deliver by itself."""
    tracker = found.tracker
    is_unknown = _is_unknown(tracker)
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

    def ways(self, calls: list[Call]) -> list[tuple[Call, Way]]:
        """Those that go again; the others are noted in the plan."""
        made: list[tuple[Call, Way]] = []
        for at in range(0, len(calls), _SIZED_MAX):
            young = [call for call in calls[at : at + _SIZED_MAX] if not self._is_too_old(call)]
            sizes = self._sizes(young)
            self._made.unreadable += [call.sequence for call in young if call.sequence not in sizes]
            made += [(call, self._way(sizes[call.sequence])) for call in young if call.sequence in sizes]
        return made

    def _is_too_old(self, call: Call) -> bool:
        is_old = self._now - born_at(call.request_id) > AGE_MAX
        self._made.too_old += [call.sequence] if is_old else []
        return is_old

    def _way(self, size: int) -> Way:
        # What is too large for Kafka never went there, so no copy of it can be under way.
        is_large = size > self._ways.kafka_record_bytes_max and self._ways.intake
        return Way.HTTP if is_large or not self._ways.partitions else Way.KAFKA

    def _sizes(self, calls: list[Call]) -> dict[int, int]:
        """Bytes of each message by sequence; 0 for a call without a record: its few facts. What cannot be read is left out."""
        found = {call.sequence: 0 for call in calls if call.place is None}
        rest = sorted((call for call in calls if call.place is not None), key=lambda call: call.place or (0, 0))
        while rest:
            built = self._records.some([Wanted.of(call, 1) for call in rest], {}, _SIZED_BYTES_MAX)
            found |= {call.sequence: len(message.data) for call, message in zip(rest, built, strict=False) if message is not None}
            rest = rest[len(built) :]
        return found


def _decide(tracker: Tracker, chosen: list[tuple[Call, Way]], made: Plan, ways: Ways) -> None:
    """As the shipper would have decided, and then heard nothing."""
    again = {call.sequence for call, _ in chosen}
    tracker.done = Ranges(pair for first, last in tracker.done.pairs() for pair in _without(first, last, again))
    for call, way in chosen:
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
