"""The spool as a state machine: the real writer, lock, reader and tracker on a disk that refuses, tears, forgets and is damaged.

Whatever happens, what was whole on the disk and not damaged comes out once, in order, with its bytes; all else is counted, or stated
as a gap. A second set of tests leaves one rule out and asserts that this very check notices: a check that cannot fail proves nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from proxy.shipper.tracker import Tracker
from proxy.spool import COMPLETED, Frame, SpoolDamaged, SpoolReader, drop_segment, segments
from proxy.spool import reader as reader_module
from proxy.spool.frames import HEAD_BYTES, Head
from proxy.spool.reader import _SegmentFile
from proxy.spool.space import Gap
from proxy.spool.writer import SpoolWriter
from tests.conftest import LEFT_OUT
from tests.proxy.spool import world as world_module
from tests.proxy.spool.disk import Disk
from tests.proxy.spool.machine import Spools, Wrong
from tests.proxy.spool.world import Shipper, World

pytestmark = pytest.mark.timeout(600)

EXAMPLES_MAX = 3000  # in which a broken variant has to show


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


def frames_before_an_error_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A read that meets an error gives nothing, and its place has moved."""

    def read(self: SpoolReader, frames_max: int, bytes_max: int) -> list[Frame]:
        frames: list[Frame] = []
        try:
            self._read_into(frames, frames_max, bytes_max)
        except OSError as error:
            self.close()
            raise SpoolDamaged from error
        return frames

    patch.setattr(SpoolReader, "read", read)


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


SEEN_SOON = (
    without_checksum,
    length_of_a_bad_frame_believed,
    gap_forgotten,
    failed_write_repeated_whole,
    dropped_uncounted,
    next_recorder_writes_all_again,
    next_recorder_begins_with_nought,
    given_back_before_it_is_written,
    settled_ahead_of_reading,
    adopted_while_it_lives,
)
# Some hundred schedules each.
SEEN_LATE = (
    search_steps_over_a_frame,
    damage_ends_the_segment,
    end_of_a_living_segment_is_damage,
    frames_before_an_error_forgotten,
    torn_frame_left,
    settled_ahead_of_delivery,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "leave_out" not in metafunc.fixturenames:
        return
    chosen = SEEN_SOON
    if metafunc.config.getoption("--full"):
        chosen += SEEN_LATE
    else:
        metafunc.config.stash[LEFT_OUT].append(
            f"{len(SEEN_LATE)} broken variants of the spool that take their time: `make faults` has them"
        )
    metafunc.parametrize("leave_out", chosen, ids=lambda found: found.__name__)


def test_each_rule_is_needed(run: Run, monkeypatch: pytest.MonkeyPatch, leave_out: Callable[[pytest.MonkeyPatch], None]) -> None:
    leave_out(monkeypatch)
    monkeypatch.setattr(Spools, "examples", 0)
    with pytest.raises(Wrong) as caught:
        run(EXAMPLES_MAX, seeded=True)
    found = caught.value.found
    harm = f"{len(found.lost)} lost, {len(found.doubled)} doubled, {len(found.wrong)} wrong"
    print(f"\n{leave_out.__name__}: {harm} in schedule {Spools.examples}")
