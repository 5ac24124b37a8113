"""Tracker: what is known of one spool's calls, which way each goes, and what of the spool is settled. Pure.

Every method that changes what must survive a crash returns the journal's entries that say so. They must be in
the journal before anything is sent, and `restore` rebuilds the same state from them.

    ["k", sequence, partition, attempt]       goes to Kafka; written again, with a higher attempt, before each try
    ["h", sequence, number, request_id]       goes by HTTP, as this number of the spool's HTTP sequence
    ["d", [sequence, ...]]                    settled: acknowledged by Kafka, or dropped and counted
    ["e", end]                                settled: all HTTP numbers below `end`
    ["o", sequence, facts]                    an open call, whose segment is about to be removed
    ["m", segment, offset]                    frames before this place have been counted
    ["x", reason, [[first, last], ...]]       lost, and counted: by the worker, or because the disk has lost it
    ["s", {...}]                              snapshot: what is settled, in ranges
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import orjson

from proxy.shipper.journal import Entry
from proxy.shipper.ranges import Ranges
from proxy.spool import COMPLETED, GAP, Frame
from proxy.spool.frames import HEAD_BYTES

Place = tuple[int, int]  # segment and byte offset


class Path(Enum):
    KAFKA = "kafka"
    HTTP = "http"


@dataclass(slots=True)
class Call:
    """A call that is not settled. Its record is at `place`; before that, or if that never comes, it has its first `facts`."""

    sequence: int
    segments: set[int] = field(default_factory=set)
    facts: bytes | None = None
    place: Place | None = None
    path: Path | None = None
    partition: int = 0
    attempt: int = 0
    number: int = 0
    request_id: str = ""
    recorded_at: str = ""
    final: bool = False  # no COMPLETED frame will come
    written: bool = False  # the path stands in the journal, so the record may be sent


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that the worker had to drop."""

    count: int
    reason: str
    entry: Entry


class Tracker:
    """`ready`: calls with a record and no path yet. `doubtful`: calls of which an attempt went to Kafka and none is under way."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.ready: dict[int, Call] = {}
        self.doubtful: dict[int, Call] = {}
        self.numbered: dict[int, Call] = {}  # by HTTP number
        self.http_next, self.http_end = 0, 0
        self.mark: Place = (0, 0)
        self.done = Ranges()
        self.lost_for: dict[str, Ranges] = {}  # by reason; a record that comes all the same counts
        self._end = 0
        self._dropped = Ranges()  # by the worker; should a record come all the same, it counts
        self._pins: dict[int, set[int]] = {}  # unsettled sequences by segment

    # What the spool says

    def see(self, frame: Frame) -> None:
        """A frame, in the order of the spool, or again after a restart; of a GAP only its place counts: `see_gap` reads it."""
        self._pins.setdefault(frame.segment, set())
        self._end = max(self._end, frame.sequence + 1)
        settled = frame.sequence in self.done or (frame.sequence in self._dropped and frame.type != COMPLETED)
        if frame.type == GAP or settled:
            return
        call = self.calls.setdefault(frame.sequence, Call(frame.sequence))
        call.segments.add(frame.segment)
        self._pins[frame.segment].add(frame.sequence)
        if frame.type == COMPLETED:
            call.place = (frame.segment, frame.end - len(frame.payload) - HEAD_BYTES)
            call.facts = None
            self._is_known(call)
        elif call.place is None:
            call.facts = bytes(frame.payload)

    def see_gap(self, frame: Frame) -> Gap:
        """Raises ValueError for a payload that is none."""
        self.see(frame)
        stated = orjson.loads(frame.payload)
        reason = str(stated["reason"])
        for first, last in stated["sequences"]:
            self._dropped.add(first, last)
            self.lost_for.setdefault(reason, Ranges()).add(first, last)
        for call in [c for c in self.calls.values() if c.place is None and c.path is None and c.sequence in self._dropped]:
            self._forget(call)
        return Gap(int(stated["count"]), reason, ["x", reason, stated["sequences"]])

    def is_new(self, frame: Frame) -> bool:
        """Whether no earlier life of the shipper has counted it."""
        return (frame.segment, frame.end) > self.mark

    def passed(self, place: Place) -> Entry:
        self.mark = max(self.mark, place)
        return ["m", *self.mark]

    def sealed(self) -> None:
        """The worker is dead and its spool read to the end: open calls are interrupted, and that is their record."""
        for call in self.calls.values():
            if call.place is None and call.facts is not None:
                call.final = True
                self._is_known(call)

    def lost(self) -> list[Call]:
        """Calls that the journal knows and no frame speaks of, once all frames up to the mark were seen."""
        return [call for call in self.calls.values() if call.place is None and call.facts is None and call.sequence not in self.ready]

    def at_hand(self, call: Call) -> bool:
        """Whether its record can be built now: not before the frames were read again after a restart."""
        return call.place is not None or call.final

    # Which way a record goes

    def to_kafka(self, call: Call, partition: int) -> Entry:
        """A first attempt."""
        self.ready.pop(call.sequence, None)
        call.path, call.partition, call.attempt = Path.KAFKA, partition, 1
        return _kafka_entry(call)

    def again(self, call: Call) -> Entry:
        """A further attempt: same path, same partition."""
        self.doubtful.pop(call.sequence, None)
        call.attempt += 1
        return _kafka_entry(call)

    def in_doubt(self, call: Call) -> None:
        self.doubtful[call.sequence] = call

    def to_http(self, call: Call, request_id: str) -> Entry:
        self.ready.pop(call.sequence, None)
        call.path, call.number, call.request_id, call.written = Path.HTTP, self.http_next, request_id, False
        self.http_next += 1
        self.numbered[call.number] = call
        return _http_entry(call)

    # What is settled

    def settle(self, calls: list[Call]) -> Entry:
        for call in calls:
            self.done.add(call.sequence)
            self._forget(call)
        return ["d", [call.sequence for call in calls]]

    def drop(self, calls: list[Call], reason: str) -> list[Entry]:
        """Settled, since nothing can be sent."""
        ranges = Ranges((call.sequence, call.sequence) for call in calls).pairs()
        self._restore_lost(reason, ranges)
        return [self.settle(calls), ["x", reason, ranges]]

    def stored(self, end: int) -> tuple[Entry, int]:
        """All HTTP numbers below `end` are in the lake; the second value says how many of them are news."""
        end = max(self.http_end, min(end, self.http_next))
        news = [self.numbered.pop(number) for number in range(self.http_end, end) if number in self.numbered]
        self.settle(news)
        self.http_end = end
        return ["e", end], len(news)

    def carry(self, segment: int) -> list[Entry]:
        """Takes the open calls of a segment into the journal, if nothing but those holds it."""
        held = [self.calls[sequence] for sequence in sorted(self._pins.get(segment, ()))]
        if not all(call.path is None and call.facts is not None and call.sequence not in self.ready for call in held):
            return []
        for call in held:
            call.segments.discard(segment)
            self._pins[segment].discard(call.sequence)
        return [_open_entry(call) for call in held]

    def removable(self, segments: list[int], reading: int) -> list[int]:
        """Of the spool's segments those that are read and hold nothing unsettled; `reading` is the reader's."""
        return [segment for segment in segments if segment < reading and not self._pins.get(segment)]

    def removed(self, segment: int) -> None:
        self._pins.pop(segment, None)

    @property
    def finished(self) -> bool:
        return not self.calls

    @property
    def end(self) -> int:
        """Behind the highest sequence that anything speaks of."""
        ranges = [self.done, *self.lost_for.values()]
        return max(self._end, *(found.end for found in ranges), *(sequence + 1 for sequence in self.calls), 0)

    # The journal

    def snapshot(self) -> list[Entry]:
        calls = [self.calls[sequence] for sequence in sorted(self.calls)]
        settled = {
            "done": self.done.pairs(),
            "dropped": self._dropped.pairs(),
            "lost": {reason: found.pairs() for reason, found in self.lost_for.items()},
            "http_next": self.http_next,
            "http_end": self.http_end,
        }
        return [
            ["s", settled],
            ["m", *self.mark],
            *(_open_entry(call) for call in calls if call.facts is not None and not call.segments),
            *(_kafka_entry(call) for call in calls if call.path is Path.KAFKA),
            *(_http_entry(call) for call in calls if call.path is Path.HTTP),
        ]

    def restore(self, entries: list[Entry]) -> None:
        """Before the first frame is seen."""
        steps: dict[str, Callable[..., object]] = {
            "k": self._restore_kafka,
            "h": self._restore_http,
            "d": self._restore_done,
            "e": self.stored,
            "o": self._restore_open,
            "m": self._restore_mark,
            "x": self._restore_lost,
            "s": self._restore_snapshot,
        }
        for kind, *values in entries:
            steps[kind](*values)

    def _restore_kafka(self, sequence: int, partition: int, attempt: int) -> None:
        if sequence not in self.done:
            call = self.calls.setdefault(sequence, Call(sequence))
            call.path, call.partition, call.attempt, call.written = Path.KAFKA, partition, attempt, True

    def _restore_http(self, sequence: int, number: int, request_id: str) -> None:
        self.http_next = max(self.http_next, number + 1)
        if sequence not in self.done:
            call = self.calls.setdefault(sequence, Call(sequence))
            call.path, call.number, call.request_id, call.written = Path.HTTP, number, request_id, True
            self.numbered[number] = call

    def _restore_done(self, sequences: list[int]) -> None:
        for sequence in sequences:
            self.done.add(sequence)
            self._forget(self.calls.get(sequence, Call(sequence)))

    def _restore_open(self, sequence: int, facts: str) -> None:
        if sequence not in self.done:
            self.calls.setdefault(sequence, Call(sequence)).facts = facts.encode()

    def _restore_mark(self, segment: int, offset: int) -> None:
        self.mark = (segment, offset)

    def _restore_lost(self, reason: str, ranges: list[tuple[int, int]]) -> None:
        for first, last in ranges:
            self.lost_for.setdefault(reason, Ranges()).add(first, last)

    def _restore_snapshot(self, settled: dict[str, Any]) -> None:
        self.done = Ranges(settled["done"])
        self._dropped = Ranges(settled["dropped"])
        self.lost_for = {reason: Ranges(pairs) for reason, pairs in settled.get("lost", {}).items()}
        self.http_next, self.http_end = settled["http_next"], settled["http_end"]

    def _is_known(self, call: Call) -> None:
        """The record can be had: it needs a path, or goes on where an earlier life of the shipper left it."""
        if call.path is None:
            self.ready[call.sequence] = call
        elif call.path is Path.KAFKA:
            self.doubtful[call.sequence] = call

    def _forget(self, call: Call) -> None:
        for segment in call.segments:
            self._pins[segment].discard(call.sequence)
        for where in (self.calls, self.ready, self.doubtful):
            where.pop(call.sequence, None)
        if self.numbered.get(call.number) is call:
            del self.numbered[call.number]


def _kafka_entry(call: Call) -> Entry:
    return ["k", call.sequence, call.partition, call.attempt]


def _http_entry(call: Call) -> Entry:
    return ["h", call.sequence, call.number, call.request_id]


def _open_entry(call: Call) -> Entry:
    return ["o", call.sequence, (call.facts or b"").decode("utf-8", "replace")]
