"""What can happen to a spool, as rules: of its worker, recorder and shipper, and of the disk under all of them."""

import errno
from typing import Any

import orjson
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from proxy.spool import ADMITTED, COMPLETED, STARTED, FrameType
from proxy.spool.frames import encode, seed_of
from proxy.spool.writer import Item
from tests.proxy.spool.disk import Trouble
from tests.proxy.spool.oracle import Judgement, judge
from tests.proxy.spool.world import World

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
    """Ends with an undisturbed time in which all that is left is written and read; raises Wrong."""

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
    @rule(operation=st.sampled_from(["read", "open"]), count=COUNT)
    def refuse_to_read(self, operation: str, count: int) -> None:
        self.world.shipper.read(1)
        self.world.disk.troubles.append(Trouble(operation, errno.EIO))
        self.world.shipper.read(count)

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

    @rule(frames=st.integers(0, 40))
    def clean(self, frames: int) -> None:
        for _ in range(frames):
            self.world.shipper.read(1)
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
