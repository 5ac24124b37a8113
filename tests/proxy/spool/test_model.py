"""The spool as a state machine: the real writer, lock, reader and tracker on a disk that refuses, tears, forgets and is damaged.

Whatever happens, what was whole on the disk and not damaged comes out once, in order, with its bytes; all else is counted, or stated
as a gap. A second set of tests leaves one rule out and asserts that this very check notices: a check that cannot fail proves nothing.
"""

import errno
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from proxy.shipper.tracker import Tracker
from proxy.spool import ADMITTED, COMPLETED, STARTED, FrameType, SpoolReader, drop_segment, segments
from proxy.spool import reader as reader_module
from proxy.spool.frames import HEAD_BYTES, Head, encode, seed_of
from proxy.spool.reader import _SegmentFile
from proxy.spool.space import Gap
from proxy.spool.writer import Item, SpoolWriter
from tests.proxy.spool import world as world_module
from tests.proxy.spool.disk import Disk, Trouble
from tests.proxy.spool.oracle import Judgement, judge
from tests.proxy.spool.world import Shipper, World

pytestmark = pytest.mark.timeout(600)

EXAMPLES_MAX = 1000  # in which a broken variant has to show
OTHER_SPOOL = "b" * 32
TROUBLES_MAX = 3
HEALING_TURNS = 50

SHARE = st.floats(0, 1)
COUNT = st.integers(1, 8)
# Bodies that look like the spool's own bytes: frames of another spool, heads, runs of zeros.
LURES = (
    b"".join(encode(seed_of(OTHER_SPOOL), COMPLETED, 3, (b"forged",))),
    b"\0\0\x10\0" + bytes(4) + b"\3" + bytes(8),
    bytes(40),
)
BODY = st.one_of(st.just(b""), st.binary(max_size=60), st.integers(0, 900).map(lambda n: b"b" * n), st.sampled_from(LURES))
CALLS = st.lists(st.tuples(st.booleans(), st.booleans(), BODY, BODY), min_size=1, max_size=5)  # has started, has ended, bodies
WRITES = ("write", "write", "write", "open", "truncate", "sync", "look")
ERRORS = (errno.EIO, errno.EIO, errno.ENOSPC, errno.EROFS)


class Wrong(AssertionError):
    """What came out is not what it must be."""

    def __init__(self, found: Judgement) -> None:
        super().__init__(str(found))
        self.found = found


class Spools(RuleBasedStateMachine):
    """Bound to a monkeypatch by `run`."""

    patch: pytest.MonkeyPatch
    examples = 0

    @initialize(bytes_max=st.sampled_from([6_000, 6_000, 1 << 30]), segment_bytes=st.sampled_from([300, 1_200]), calls=CALLS)
    def begin(self, bytes_max: int, segment_bytes: int, calls: list[Any]) -> None:
        Spools.examples += 1
        self.inner = pytest.MonkeyPatch()
        self.world = World(self.inner, bytes_max=bytes_max, segment_bytes=segment_bytes)
        self.open: list[tuple[int, bytes, bytes]] = []  # calls that have not ended
        self.calls = 0
        self.over = False  # the machine stood still: no writer any more
        self.untouched = True
        self.note(calls)

    # The worker

    @rule(calls=CALLS)
    def note(self, calls: list[Any]) -> None:
        for has_started, has_ended, request, response in calls:
            sequence, self.calls = self.calls, self.calls + 1
            items = [_mark(ADMITTED, sequence), *([_mark(STARTED, sequence)] if has_started else [])]
            if has_ended:
                items.append(_record(sequence, request, response))
            else:
                self.open.append((sequence, request, response))
            self.world.note(items)

    @precondition(lambda self: self.open)
    @rule(share=SHARE)
    def a_call_ends(self, share: float) -> None:
        self.world.note([_record(*self.open.pop(int(share * (len(self.open) - 1))))])

    @precondition(lambda self: self.open and self.world.writer is not None)
    @rule(count=COUNT)
    def no_room_in_the_queue(self, count: int) -> None:
        dropped, self.open = self.open[:count], self.open[count:]
        self.world.drop_in_queue([sequence for sequence, _, _ in dropped])

    # The recorder

    @rule(count=COUNT, settle=st.booleans())
    def write(self, count: int, settle: bool) -> None:
        self.world.write(count, settle=settle)

    @rule()
    def time_passes(self) -> None:
        self.world.look()

    @precondition(lambda self: self.world.writer is not None)
    @rule()
    def the_recorder_dies(self) -> None:
        self.untouched = False
        self.world.kill_recorder()

    @precondition(lambda self: self.world.writer is None and not self.over)
    @rule()
    def another_recorder(self) -> None:
        self.world.start_recorder()

    # The disk

    @precondition(lambda self: len(self.world.disk.troubles) < TROUBLES_MAX)
    @rule(operation=st.sampled_from(WRITES), error=st.sampled_from(ERRORS), share=SHARE)
    def refuse(self, operation: str, error: int, share: float) -> None:
        self.world.disk.troubles.append(Trouble(operation, error, share))

    @precondition(lambda self: self.world.writer is not None)
    @rule(operation=st.sampled_from(WRITES), share=SHARE, count=COUNT)
    def die_in(self, operation: str, share: float, count: int) -> None:
        """And another goes on, as soon as the disk lets it."""
        self.untouched = False
        self.world.disk.troubles.append(Trouble(operation, None, share))
        self.world.write(count, settle=True)
        if self.world.writer is None:
            self.world.start_recorder()

    @precondition(lambda self: len(self.world.disk.troubles) < TROUBLES_MAX)
    @rule()
    def refuse_to_read(self) -> None:
        self.world.disk.troubles.append(Trouble("read", errno.EIO))

    @rule(room=st.integers(0, 400), count=COUNT)
    def fill(self, room: int, count: int) -> None:
        """All but this is taken by somebody else, after the writer has looked."""
        disk = self.world.disk
        self.world.look()
        disk.size = sum(len(file.data) for file in disk.files.values()) + room
        self.world.write(count, settle=True)

    @rule()
    def free(self) -> None:
        self.world.disk.size = 1 << 40

    @precondition(lambda self: self.world.disk.segments())
    @rule(which=SHARE, where=SHARE, bit=st.integers(0, 7))
    def flip(self, which: float, where: float, bit: int) -> None:
        """In a sealed segment or in the living one."""
        self.untouched = False
        file = _one_of(self.world.disk.segments(), which)
        if file.data:
            at = int(where * (len(file.data) - 1))
            file.data[at] ^= 1 << bit
            file.damage(at, at + 1)

    @precondition(lambda self: self.world.disk.segments())
    @rule(which=SHARE, where=SHARE, size=st.integers(1, 120))
    def zero(self, which: float, where: float, size: int) -> None:
        self.untouched = False
        file = _one_of(self.world.disk.segments(), which)
        at = int(where * len(file.data))
        end = min(at + size, len(file.data))
        file.data[at:end] = bytes(end - at)
        file.damage(at, end)

    @precondition(lambda self: len(self.world.disk.segments()) > 1)
    @rule(which=SHARE)
    def remove(self, which: float) -> None:
        """A segment, but not the newest one: by its name the next recorder knows how far the last one came."""
        self.untouched = False
        file = _one_of(self.world.disk.segments()[:-1], which)
        file.damage(0, 1 << 60)
        (self.world.folder / file.name).unlink()

    @rule(name=st.sampled_from(["notes.txt", "1.seg", "x.seg", "lock~"]), data=st.binary(max_size=50))
    def put_a_foreign_file(self, name: str, data: bytes) -> None:
        self.world.disk.make(f"{self.world.folder.path}/{name}", data)

    @precondition(lambda self: not self.over)
    @rule(share=SHARE, power=st.booleans())
    def everything_dies(self, share: float, power: bool) -> None:
        """Worker and recorder at once; with the power, what was not synced is there in part."""
        self.over, self.untouched = True, False
        self.world.kill_all()
        if power:
            self.world.disk.lose_power(share)
            self.world.shipper.restart()

    @precondition(lambda self: self.over)
    @rule(number=st.integers(0, 99), data=st.binary(max_size=80))
    def put_a_foreign_segment(self, number: int, data: bytes) -> None:
        """Of no bytes, or of garbage."""
        path = f"{self.world.folder.path}/{number:020d}.seg"
        if path not in self.world.disk.files:
            self.world.disk.make(path, data)

    # The shipper

    @rule(count=COUNT)
    def read(self, count: int) -> None:
        self.world.shipper.read(count)

    @precondition(lambda self: self.world.handed < len(self.world.items))
    @rule(count=COUNT, frames=st.integers(1, 40))
    def read_in_the_middle_of_a_write(self, count: int, frames: int) -> None:
        self.world.disk.interlude = lambda: self.world.shipper.read(frames) and None
        self.world.write(count, settle=True)

    @rule(count=COUNT)
    def deliver(self, count: int) -> None:
        self.world.shipper.deliver(count)

    @rule()
    def clean(self) -> None:
        self.world.shipper.clean()

    @rule()
    def the_shipper_dies(self) -> None:
        self.world.shipper.restart()

    @rule()
    def adopt(self) -> None:
        if self.world.shipper.adopt() and not self.over:
            raise Wrong(Judgement(wrong=["the spool of a living worker was adopted"]))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self._heal()
            found = judge(self.world, untouched=self.untouched and not self.world.disk.refused_cuts)
            if found:
                raise Wrong(found)
        finally:
            self.inner.undo()

    def _heal(self) -> None:
        """The disk takes everything again, the recorder writes what is noted, the worker ends, the shipper reads it all."""
        world = self.world
        world.disk.troubles.clear()
        world.disk.size, world.disk.interlude = 1 << 40, None
        if not self.over:
            assert world.writer is not None or world.start_recorder()
            self._write_all()
            assert world.writer is not None
            world.writer.close()
            world.release()
        world.shipper.finish()

    def _write_all(self) -> None:
        world = self.world
        for _ in range(HEALING_TURNS):
            world.write(len(world.items), settle=True)
            world.shipper.work()
            world.look()
            assert world.writer is not None
            if world.handed == len(world.items) and not world.writer._gaps:
                return
        raise AssertionError("a writer that nothing disturbs never states its gaps")


def _mark(kind: FrameType, sequence: int) -> Item:
    return int(kind), sequence, orjson.dumps({"call": sequence}), b"", b"", ()


def _record(sequence: int, request: bytes, response: bytes) -> Item:
    return int(COMPLETED), sequence, orjson.dumps({"call": sequence}), request, response, ()


def _one_of(files: list[Any], which: float) -> Any:
    return files[int(which * (len(files) - 1))]


Run = Callable[..., None]


@pytest.fixture
def run() -> Iterator[Run]:
    def play(examples: int, steps: int = 40, *, seeded: bool = False) -> None:
        phases = [Phase.generate] if seeded else [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
        run_state_machine_as_test(
            Spools,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=seeded, database=None, phases=phases,
                suppress_health_check=list(HealthCheck), print_blob=True, report_multiple_bugs=False,
            ),
        )  # fmt: skip

    return play


def test_what_is_whole_on_the_disk_comes_out_once_and_all_else_is_counted(run: Run, request: pytest.FixtureRequest) -> None:
    run(1500 if request.config.getoption("--full") else 120)


def without_checksum(patch: pytest.MonkeyPatch) -> None:
    """A head that can be one is believed."""

    def unchecked(seed: int, head: Head, data: bytes, offset: int) -> memoryview | None:
        end = offset + head.frame_bytes
        return memoryview(data)[offset + HEAD_BYTES : end] if end <= len(data) else None

    patch.setattr(reader_module, "checked_payload", unchecked)


def search_steps_over_a_frame(patch: pytest.MonkeyPatch) -> None:
    """Behind damage, reading goes on at the second frame that is found."""
    real = _SegmentFile.search

    def search(self: _SegmentFile, offset: int, size: int) -> int | None:
        first = real(self, offset, size)
        return None if first is None else real(self, first + 1, size)

    patch.setattr(_SegmentFile, "search", search)
    patch.setattr(_SegmentFile, "behind", lambda self, offset: None)


def damage_ends_the_segment(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_SegmentFile, "search", lambda self, offset, size: None)
    patch.setattr(_SegmentFile, "behind", lambda self, offset: None)


def length_of_a_bad_frame_believed(patch: pytest.MonkeyPatch) -> None:
    """No search: a bad frame ends where it says."""
    patch.setattr(_SegmentFile, "search", lambda self, offset, size: None)
    patch.setattr(_SegmentFile, "behind", lambda self, offset: head and offset + head.frame_bytes if (head := self._head(offset)) else None)


def end_of_a_living_segment_is_damage(patch: pytest.MonkeyPatch) -> None:
    """A frame that is not whole yet is passed over."""
    real = SpoolReader._pass_damage
    patch.setattr(SpoolReader, "_pass_damage", lambda self, file, size, *, final: real(self, file, size, final=True))


def gap_forgotten(patch: pytest.MonkeyPatch) -> None:
    """When the disk refuses its mark."""
    real = SpoolWriter._drop_outgoing
    patch.setattr(SpoolWriter, "_drop_outgoing", lambda self, frames: real(self, [frame for frame in frames if frame.gap is None]))


def failed_write_repeated_whole(patch: pytest.MonkeyPatch) -> None:
    """What went to the disk before the error goes there again."""
    real = SpoolWriter._settle

    def settle(self: SpoolWriter, group: list[Any], written: int) -> int:
        whole = written >= sum(frame.size for frame in group)
        return real(self, group, written if whole else 0)

    patch.setattr(SpoolWriter, "_settle", settle)
    patch.setattr(SpoolWriter, "_cut", lambda self: False)


def torn_frame_left(patch: pytest.MonkeyPatch) -> None:
    """A full disk's torn frame stays, and others follow it."""
    patch.setattr(SpoolWriter, "_cut", lambda self: True)


def dropped_uncounted(patch: pytest.MonkeyPatch) -> None:
    """What a refusing disk did not take is not counted."""

    def drop(self: SpoolWriter, kind: int, sequence: int, reason: str) -> None:
        if kind == COMPLETED:
            self._gaps.setdefault(reason, Gap()).add(sequence)

    patch.setattr(SpoolWriter, "_drop", drop)


def next_recorder_writes_all_again(patch: pytest.MonkeyPatch) -> None:
    real = world_module.written_last
    patch.setattr(world_module, "written_last", lambda folder: (real(folder)[0], set()))


def next_recorder_begins_with_nought(patch: pytest.MonkeyPatch) -> None:
    """Its segments have names before those that were read."""
    real = world_module.written_last
    patch.setattr(world_module, "written_last", lambda folder: (0, real(folder)[1]))


def given_back_before_it_is_written(patch: pytest.MonkeyPatch) -> None:
    """The room of a note, before its frame is on the disk."""
    real = World.write

    def write(self: World, count: int, *, settle: bool) -> None:
        if self.writer is not None:
            self.settled = max(self.settled, min(self.handed + count, len(self.items)))
        real(self, count, settle=settle)

    patch.setattr(World, "write", write)


def settled_ahead_of_delivery(patch: pytest.MonkeyPatch) -> None:
    """A segment goes once it is read."""

    def clean(self: Shipper) -> None:
        for segment in segments(self.world.folder):
            if segment < self.position[0]:
                drop_segment(self.world.folder, segment)

    patch.setattr(Shipper, "clean", clean)


def settled_ahead_of_reading(patch: pytest.MonkeyPatch) -> None:
    """The place in the journal is one frame further than what was read."""
    real = Tracker.passed
    patch.setattr(Tracker, "passed", lambda self, place: real(self, (place[0], place[1] + HEAD_BYTES + 20)))


def adopted_while_it_lives(patch: pytest.MonkeyPatch) -> None:
    """The lock is not asked."""
    patch.setattr(Disk, "flock", lambda self, descriptor, how: None)


BROKEN = (
    without_checksum,
    search_steps_over_a_frame,
    damage_ends_the_segment,
    length_of_a_bad_frame_believed,
    end_of_a_living_segment_is_damage,
    gap_forgotten,
    failed_write_repeated_whole,
    torn_frame_left,
    dropped_uncounted,
    next_recorder_writes_all_again,
    next_recorder_begins_with_nought,
    given_back_before_it_is_written,
    settled_ahead_of_delivery,
    settled_ahead_of_reading,
    adopted_while_it_lives,
)


@pytest.mark.parametrize("leave_out", BROKEN, ids=lambda found: found.__name__)
def test_each_rule_is_needed(run: Run, monkeypatch: pytest.MonkeyPatch, leave_out: Callable[[pytest.MonkeyPatch], None]) -> None:
    leave_out(monkeypatch)
    monkeypatch.setattr(Spools, "examples", 0)
    with pytest.raises(Wrong) as caught:
        run(EXAMPLES_MAX, seeded=True)
    found = caught.value.found
    harm = f"{len(found.lost)} lost, {len(found.doubled)} doubled, {len(found.wrong)} wrong"
    print(f"\n{leave_out.__name__}: {harm} in schedule {Spools.examples}")
