"""Tracker and journal under every order of reading, deciding, sending, doubting, cleaning and dying.

The model keeps what outlives the shipper: the spool's frames, the journal's bytes, Kafka's log and the intake's. The
shipper's own memory is a Tracker, thrown away at each crash, which can come between any two steps of any rule.
"""

from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.shipper import journal
from proxy.shipper.tracker import Call, Path, Tracker
from proxy.spool import ADMITTED, COMPLETED, GAP, STARTED, Frame
from proxy.spool.frames import HEAD_BYTES

FRAMES_PER_SEGMENT = 4


class Crash(Exception):
    pass


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.frames: dict[int, list[Frame]] = {0: []}  # by segment
        self.sequence = 0
        self.running: set[int] = set()
        self.completed: set[int] = set()
        self.dropped: set[int] = set()
        self.dead = False
        self.disk = b""
        self.kafka: list[tuple[int, int, int]] = []  # sequence, partition, attempt
        self.http: list[int] = []
        self.crash_in = -1
        self.start_shipper()

    # The worker

    def append(self, kind: Any, sequence: int, payload: bytes) -> None:
        segment = max(self.frames)
        if len(self.frames[segment]) == FRAMES_PER_SEGMENT:
            segment += FRAMES_PER_SEGMENT
            self.frames[segment] = []
        written = self.frames[segment]
        end = (written[-1].end if written else 0) + HEAD_BYTES + len(payload)
        written.append(Frame(kind, sequence, memoryview(payload), segment, end))

    @precondition(lambda self: not self.dead)
    @rule(mark=st.booleans())
    def admit(self, mark: bool) -> None:
        if mark:  # else the worker had no room for it
            self.append(ADMITTED, self.sequence, b"facts %d" % self.sequence)
        self.running.add(self.sequence)
        self.sequence += 1

    @precondition(lambda self: not self.dead and self.running)
    @rule(pick=st.integers(0, 99))
    def start(self, pick: int) -> None:
        sequence = sorted(self.running)[pick % len(self.running)]
        self.append(STARTED, sequence, b"started %d" % sequence)

    @precondition(lambda self: not self.dead and self.running)
    @rule(pick=st.integers(0, 99))
    def complete(self, pick: int) -> None:
        sequence = sorted(self.running)[pick % len(self.running)]
        self.running.discard(sequence)
        self.append(COMPLETED, sequence, b"record %d" % sequence)
        self.completed.add(sequence)

    @precondition(lambda self: not self.dead and self.running)
    @rule(pick=st.integers(0, 99), coarse=st.booleans())
    def drop(self, pick: int, coarse: bool) -> None:
        """A coarse gap also covers sequences that are not dropped."""
        sequence = sorted(self.running)[pick % len(self.running)]
        self.running.discard(sequence)
        self.dropped.add(sequence)
        ranges = [[max(0, sequence - 1), sequence]] if coarse else [[sequence, sequence]]
        self.dropped |= {number for first, last in ranges for number in range(first, last + 1) if number in self.running}
        self.append(GAP, sequence, orjson.dumps({"count": 1, "reason": "space", "sequences": ranges}))

    @precondition(lambda self: not self.dead and self.sequence > 3)
    @rule()
    def die(self) -> None:
        self.dead = True

    # The shipper

    def start_shipper(self) -> None:
        self.tracker = Tracker()
        self.position = (-1, 0)
        self.ended = False
        self.in_flight: list[tuple[int, int, int]] = []
        batches, _ = journal.decode(self.disk)
        self.tracker.restore([entry for batch in batches for entry in batch])
        self.disk = journal.encode(self.tracker.snapshot())

    def step(self) -> None:
        """A place where the shipper may die."""
        self.crash_in -= 1
        if self.crash_in == 0:
            raise Crash

    def write(self, entries: list[Any]) -> None:
        self.step()
        self.disk += journal.encode(entries)
        self.step()

    @rule(steps=st.integers(1, 12))
    def crash_soon(self, steps: int) -> None:
        self.crash_in = steps

    @rule()
    def crash_now(self) -> None:
        self.start_shipper()

    def guarded(self, work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except Crash:
            self.start_shipper()

    @rule(count=st.integers(1, 6))
    def read(self, count: int) -> None:
        self.guarded(self._read, count)

    def _read(self, count: int) -> None:
        unread = [frame for segment in sorted(self.frames) for frame in self.frames[segment] if (segment, frame.end) > self.position]
        for frame in unread[:count]:
            if frame.type == GAP:
                self.tracker.see_gap(frame)
            else:
                self.tracker.see(frame)
            self.position = (frame.segment, frame.end)
        if unread:
            self.write([self.tracker.passed(self.position)])
        elif self.dead and not self.ended:
            self.tracker.sealed()
            self.ended = True
        if self.ended or self.position >= self.tracker.mark:
            assert not self.tracker.lost(), "no frame of an unsettled call may be removed"

    @rule(http=st.sets(st.integers(0, 5)), fates=st.lists(st.sampled_from(["ack", "doubt", "lost", "large"]), min_size=6, max_size=6))
    def decide(self, http: set[int], fates: list[str]) -> None:
        self.guarded(self._decide, http, fates)

    def _decide(self, http: set[int], fates: list[str]) -> None:
        calls = list(self.tracker.ready.values())[:6]
        entries = []
        to_kafka = []
        for at, call in enumerate(calls):
            if at in http:
                entries.append(self.tracker.to_http(call, f"id {call.sequence}"))
            else:
                entries.append(self.tracker.to_kafka(call, call.sequence % 3))
                to_kafka.append(call)
        if calls:
            self.write(entries)
        for call in calls:
            call.written = True
        self._publish(to_kafka, fates)

    @rule(fates=st.lists(st.sampled_from(["ack", "doubt", "lost", "large"]), min_size=6, max_size=6))
    def again(self, fates: list[str]) -> None:
        self.guarded(self._again, fates)

    def _again(self, fates: list[str]) -> None:
        calls = list(self.tracker.doubtful.values())[:6]
        if calls:
            self.write([self.tracker.again(call) for call in calls])
        self._publish(calls, fates)

    def _publish(self, calls: list[Call], fates: list[str]) -> None:
        settled = []
        for call, fate in zip(calls, fates, strict=False):
            self.content(call)
            if fate in {"ack", "doubt"}:  # in doubt, and it did arrive
                self.kafka.append((call.sequence, call.partition, call.attempt))
            self.step()
            if fate == "ack":
                settled.append(call)
            elif fate == "large" and call.attempt == 1:
                self.write([self.tracker.to_http(call, f"id {call.sequence}")])
                call.written = True
            else:
                self.tracker.in_doubt(call)
        if settled:
            self.write([self.tracker.settle(settled)])

    @rule(fate=st.sampled_from(["stored", "answer lost", "not stored"]), count=st.integers(1, 5))
    def post(self, fate: str, count: int) -> None:
        self.guarded(self._post, fate, count)

    def _post(self, fate: str, count: int) -> None:
        tracker = self.tracker
        first = tracker.http_end
        batch: list[Call] = []
        for number in range(first, min(tracker.http_next, first + count)):
            call = tracker.numbered.get(number)
            if call is None or not call.written or not tracker.at_hand(call):
                break
            batch.append(call)
        if not batch or fate == "not stored":
            return
        assert first <= len(self.http), "the intake would answer 409"
        for at, call in enumerate(batch):
            self.content(call)
            number = first + at
            if number < len(self.http):
                assert self.http[number] == call.sequence, "a number was given to two records"
            else:
                self.http.append(call.sequence)
        self.step()
        if fate == "stored":
            entry, _ = tracker.stored(len(self.http))
            self.write([entry])

    def content(self, call: Call) -> None:
        """The record can be built: its frame is still there, or the facts are."""
        if call.place is None:
            assert call.facts is not None
            assert self.ended
        else:
            found = [f for f in self.frames[call.place[0]] if f.end - HEAD_BYTES - len(f.payload) == call.place[1]]
            assert [f.sequence for f in found if f.type == COMPLETED] == [call.sequence]

    @rule()
    def clean(self) -> None:
        self.guarded(self._clean)

    def _clean(self) -> None:
        reading = self.position[0]
        existing = [segment for segment in sorted(self.frames) if segment < reading]
        if carried := [entry for segment in existing for entry in self.tracker.carry(segment)]:
            self.write(carried)
        for segment in self.tracker.removable(existing, reading):
            self.step()
            del self.frames[segment]
            self.tracker.removed(segment)

    @rule()
    def compact(self) -> None:
        self.disk = journal.encode(self.tracker.snapshot())

    # What must hold

    @invariant()
    def one_path_per_record(self) -> None:
        both = {sequence for sequence, _, _ in self.kafka} & set(self.http)
        assert not both

    @invariant()
    def http_numbers_hold_each_record_once(self) -> None:
        assert max(Counter(self.http).values(), default=1) == 1

    @invariant()
    def copies_in_kafka_can_be_told_apart(self) -> None:
        assert len(set(self.kafka)) == len(self.kafka)
        assert len({(sequence, partition) for sequence, partition, _ in self.kafka}) == len({sequence for sequence, _, _ in self.kafka})

    def teardown(self) -> None:
        """From any state, without further faults, everything that was promised arrives, and the spool is empty."""
        self.crash_in = -1
        self.dead = True
        for _ in range(400):
            self._read(100)
            self._decide({0, 2, 4}, ["ack"] * 6)
            self._again(["ack"] * 6)
            self._post("stored", 100)
            self._clean()
            if self.ended and self.tracker.finished:
                break
        assert self.tracker.finished
        sent = {sequence for sequence, _, _ in self.kafka} | set(self.http)
        marked = {sequence for sequence in self.running if sequence not in self.dropped}
        assert self.completed <= sent
        assert sent <= self.completed | self.running | self.dropped
        # A call whose admission mark found no room, and of which nothing else is known, cannot be reported.
        assert {s for s in marked if s in self.marks()} <= sent

    def marks(self) -> set[int]:
        return {frame.sequence for frames in self.frames.values() for frame in frames if frame.type in (ADMITTED, STARTED)}


World.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestWorld = World.TestCase


class Careless(World):
    """Sends before it writes down: the checker must see the difference."""

    def _decide(self, http: set[int], fates: list[str]) -> None:
        calls = list(self.tracker.ready.values())[:6]
        entries = []
        for at, call in enumerate(calls):
            entries.append(self.tracker.to_http(call, "") if at in http else self.tracker.to_kafka(call, call.sequence % 3))
        for call in calls:
            call.written = True
        self._publish([call for call in calls if call.path is Path.KAFKA], fates)
        if calls:
            self.write(entries)


class Forgetful(World):
    """Does not write a further attempt down."""

    def _again(self, fates: list[str]) -> None:
        calls = list(self.tracker.doubtful.values())[:6]
        for call in calls:
            self.tracker.again(call)
        self._publish(calls, fates)


class Hasty(World):
    """Removes segments as soon as they were read."""

    def _clean(self) -> None:
        for segment in [segment for segment in sorted(self.frames) if segment < self.position[0]]:
            self.step()
            del self.frames[segment]
            self.tracker.removed(segment)


def dies_after_sending(world: World) -> None:
    world.admit(mark=True)
    world.complete(0)
    world.read(6)
    world.crash_in = 1
    world.decide(set(), ["doubt"] * 6)
    world.read(6)
    world.decide({0}, ["ack"] * 6)
    world.post("stored", 5)


def dies_after_a_second_attempt(world: World) -> None:
    world.admit(mark=True)
    world.complete(0)
    world.read(6)
    world.decide(set(), ["doubt"] * 6)
    world.again(["doubt"] * 6)
    world.crash_now()
    world.read(6)
    world.again(["ack"] * 6)


def cleans_with_a_call_in_doubt(world: World) -> None:
    for _ in range(5):
        world.admit(mark=True)
    for _ in range(5):
        world.complete(0)
    world.read(6)
    world.read(6)
    world.decide(set(), ["doubt"] * 6)
    world.clean()
    world.again(["ack"] * 6)


SCHEDULES = {Careless: dies_after_sending, Forgetful: dies_after_a_second_attempt, Hasty: cleans_with_a_call_in_doubt}


@pytest.mark.parametrize("broken", SCHEDULES)
def test_the_checker_sees_broken_rules(broken: type[World]) -> None:
    for kind in (World, broken):
        world = kind()
        try:
            SCHEDULES[broken](world)
            world.one_path_per_record()
            world.copies_in_kafka_can_be_told_apart()
            world.teardown()
        except (AssertionError, KeyError):
            assert kind is broken
        else:
            assert kind is World
