"""Disks that are full, broken, read-only or gone: the caller notices nothing, and every drop is counted."""

import errno
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from proxy.spool import COMPLETED, GAP, Frame, SpoolReader, SpoolThread, claim, drop_segment, segments, split_completed
from proxy.spool import writer as writer_module

DISK_BYTES = 4 << 20
FACTS = orjson.dumps({"schema": "call.v1", "policy": {"omitted": [], "dropped": []}, "pad": "f" * 500})
BARE = {"schema": "call.v1", "policy": {"omitted": [], "dropped": ["request", "response"]}, "pad": "f" * 500}


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_LOOK_S", 0.02)
    monkeypatch.setattr("proxy.spool.thread._IDLE_S", 0.02)


@dataclass
class Disk:
    root: Path
    mounted: bool

    @property
    def bytes_max(self) -> int:
        """A mounted disk bounds by itself."""
        return 1 << 30 if self.mounted else DISK_BYTES


def mount(root: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(root)]
    return os.geteuid() == 0 and shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A real one of 4 MiB where we may mount, else a folder with a bound of 4 MiB."""
    root = tmp_path / "disk"
    root.mkdir()
    mounted = mount(root)
    yield Disk(root, mounted)
    if mounted:
        subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.fixture
def small_disk(disk: Disk) -> Disk:
    if not disk.mounted:
        pytest.skip("needs the right to mount a tmpfs")
    return disk


def started(root: Path, *, bytes_max: int = 1 << 30, segment_bytes: int = 1 << 18, queue_bytes_max: int = 256 << 20) -> SpoolThread:
    spool = SpoolThread(root, bytes_max=bytes_max, segment_bytes=segment_bytes, queue_bytes_max=queue_bytes_max)
    spool.start()
    return spool


def complete(spool: SpoolThread, count: int, body: bytes = b"b" * 10_000) -> None:
    for _ in range(count):
        spool.completed(spool.admit(FACTS), FACTS, body, body)


def settle(spool: SpoolThread) -> None:
    until(lambda: spool.queue_bytes == 0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def read(spool: SpoolThread, *, corrupt: bool = False) -> list[Frame]:
    reader = SpoolReader(spool.folder, sealed=not spool.alive)
    frames: list[Frame] = []
    while more := reader.read(100, 1 << 20):
        frames += more
    reader.close()
    assert corrupt or reader.corrupt_bytes == 0
    return frames


def assert_conserved(spool: SpoolThread) -> None:
    counters = spool.counters
    assert counters.completed == counters.written_records + sum(counters.dropped_records.values())


def dropped_by_gaps(frames: list[Frame]) -> list[int]:
    gaps = [orjson.loads(frame.payload) for frame in frames if frame.type == GAP]
    for gap in gaps:
        assert gap["from"] == gap["sequences"][0][0]
        assert gap["to"] == gap["sequences"][-1][1]
    sequences = [number for gap in gaps for first, last in gap["sequences"] for number in range(first, last + 1)]
    assert sum(gap["count"] for gap in gaps) == len(sequences)
    return sorted(sequences)


def test_a_filling_disk_costs_bodies_first_then_records_and_states_the_gap_once(disk: Disk) -> None:
    spool = started(disk.root, bytes_max=disk.bytes_max)
    complete(spool, 1500)
    settle(spool)
    counters = spool.counters
    assert counters.dropped_records["space"] > 0
    records = [split_completed(frame.payload) for frame in read(spool) if frame.type == COMPLETED]
    whole = [record for record in records if record[1]]
    bare = [record for record in records if not record[1]]
    assert records == whole + bare
    assert len(whole) * 20_000 > DISK_BYTES * 7 // 10
    assert bare == [(BARE, b"", b"")] * counters.dropped_bodies["space"] != []
    time.sleep(0.1)  # many looks, and each finds a little room
    complete(spool, 1)
    settle(spool)
    assert counters.gaps == 0
    on_disk = sum(path.stat().st_size for path in spool.folder.glob("*.seg"))
    assert DISK_BYTES * 9 // 10 < on_disk <= DISK_BYTES

    for segment in segments(spool.folder)[:-1]:
        drop_segment(spool.folder, segment)
    until(lambda: counters.gaps == 1)
    complete(spool, 1)
    assert spool.stop(5)
    after = read(spool)
    assert [frame.type for frame in after].count(GAP) == 1
    assert split_completed(after[-1].payload)[1] == b"b" * 10_000
    assert len(dropped_by_gaps(after)) == counters.dropped_records["space"] == 1502 - counters.written_records
    assert_conserved(spool)
    assert sum(counters.dropped_records.values()) == counters.dropped_records["space"]


def test_a_disk_that_fills_in_the_middle_of_a_frame_leaves_no_garbage(small_disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_LOOK_S", 0.5)
    spool = started(small_disk.root)
    complete(spool, 3)
    settle(spool)
    ballast = small_disk.root / "ballast"
    free = os.statvfs(small_disk.root)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 50_000))
    complete(spool, 10)
    settle(spool)
    counters = spool.counters
    assert counters.disk_errors == 1
    assert counters.dropped_records["space"] > 0
    assert counters.dropped_records["disk_error"] == 0
    assert len([frame for frame in read(spool) if frame.type == COMPLETED]) == counters.written_records > 3
    ballast.unlink()
    until(lambda: counters.gaps == 1)
    complete(spool, 2)
    assert spool.stop(5)
    frames = read(spool)
    written = [frame.sequence for frame in frames if frame.type == COMPLETED]
    assert sorted(written + dropped_by_gaps(frames)) == list(range(15))
    assert_conserved(spool)


def test_a_frame_torn_by_the_kernel_is_written_again_in_a_new_segment(tmp_path: Path) -> None:
    """A file-size limit of the process stops a write in its middle, as a failing disk does."""
    spool = started(tmp_path, segment_bytes=1 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        complete(spool, 30)
        settle(spool)
        assert spool.stop(5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    frames = read(spool)
    assert [frame.sequence for frame in frames if frame.type == COMPLETED] == list(range(30))
    assert spool.counters.disk_errors == len(segments(spool.folder)) - 1 > 3
    assert_conserved(spool)


def fail_with(monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> list[int]:
    """`os.<name>` refuses as a broken disk does; the descriptors it was called with."""
    real, calls = getattr(os, name), list[int]()

    def call(descriptor: int, *rest: object) -> object:
        calls.append(descriptor)
        if len(calls) <= times:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, *rest)

    monkeypatch.setattr(os, name, call)
    return calls


def test_one_io_error_costs_a_segment_and_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = started(tmp_path)
    complete(spool, 1)
    settle(spool)
    fail_with(monkeypatch, "writev", 1)
    complete(spool, 5)
    assert spool.stop(5)
    assert [frame.sequence for frame in read(spool) if frame.type == COMPLETED] == list(range(6))
    assert spool.counters.disk_errors == 1
    assert len(segments(spool.folder)) == 2


def test_a_disk_that_keeps_refusing_costs_records_and_states_the_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = started(tmp_path)
    complete(spool, 1)
    settle(spool)
    with monkeypatch.context() as patch:
        fail_with(patch, "writev", 1_000_000)
        complete(spool, 5)
        settle(spool)
        until(lambda: spool.counters.disk_errors > 5)
    until(lambda: spool.counters.gaps == 1)
    complete(spool, 1)
    assert spool.stop(5)
    frames = read(spool)
    assert dropped_by_gaps(frames) == [1, 2, 3, 4, 5]
    assert [frame.sequence for frame in frames if frame.type == COMPLETED] == [0, 6]
    assert spool.counters.dropped_records["disk_error"] == 5
    assert spool.counters.dropped_marks["disk_error"] == 5
    assert_conserved(spool)


def test_a_failed_fdatasync_is_never_tried_again_for_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fail_with(monkeypatch, "fdatasync", 1_000_000)
    spool = started(tmp_path, segment_bytes=30_000)
    complete(spool, 5)
    assert spool.stop(5)
    assert len(calls) == len(segments(spool.folder)) == spool.counters.disk_errors == 5
    assert spool.counters.written_records == 5


@pytest.mark.parametrize("kind", ["file in the way", "missing parents"])
def test_a_root_that_cannot_be_made_or_must_be(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "a" / "b"
    if kind == "file in the way":
        (tmp_path / "a").write_bytes(b"")
    spool = started(root)
    complete(spool, 3)
    settle(spool)
    if kind == "missing parents":
        assert spool.counters.written_records == 3
    else:
        assert spool.counters.dropped_records["disk_error"] == 3
        (tmp_path / "a").unlink()
        until(lambda: spool.counters.gaps == 1)
        assert dropped_by_gaps(read(spool)) == [0, 1, 2]
    assert spool.stop(5)
    assert_conserved(spool)


def test_a_read_only_disk_is_counted_and_used_once_it_can_be_written(small_disk: Disk) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.root)], check=True)
    spool = started(small_disk.root)
    complete(spool, 4)
    settle(spool)
    assert spool.counters.dropped_records["disk_error"] == 4
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk.root)], check=True)
    until(lambda: spool.counters.gaps == 1)
    complete(spool, 1)
    assert spool.stop(5)
    assert dropped_by_gaps(read(spool)) == [0, 1, 2, 3]
    assert_conserved(spool)


def test_a_folder_deleted_under_the_writer_is_made_again(tmp_path: Path) -> None:
    spool = started(tmp_path)
    complete(spool, 3)
    settle(spool)
    shutil.rmtree(spool.folder)
    until(spool.folder.exists)
    complete(spool, 3)
    assert spool.stop(5)
    assert [frame.sequence for frame in read(spool) if frame.type == COMPLETED] == [3, 4, 5]
    assert spool.counters.disk_errors > 0
    assert list(tmp_path.iterdir()) == [spool.folder]


def test_a_lock_deleted_under_the_writer_is_taken_again(tmp_path: Path) -> None:
    spool = started(tmp_path)
    complete(spool, 1)
    settle(spool)
    (spool.folder / "lock").unlink()
    until((spool.folder / "lock").exists)
    complete(spool, 1)
    settle(spool)
    assert claim(spool.folder) is None
    assert spool.stop(5)
    assert [frame.sequence for frame in read(spool) if frame.type == COMPLETED] == [0, 1]


def test_a_segment_deleted_under_the_writer_is_followed_by_a_new_one(tmp_path: Path) -> None:
    spool = started(tmp_path)
    complete(spool, 3)
    settle(spool)
    drop_segment(spool.folder, 0)
    until(lambda: spool.counters.disk_errors == 1)
    complete(spool, 3)
    assert spool.stop(5)
    assert [frame.sequence for frame in read(spool) if frame.type == COMPLETED] == [3, 4, 5]


def test_a_queue_over_its_bound_costs_bodies_then_records_and_states_the_gap(tmp_path: Path) -> None:
    spool = SpoolThread(tmp_path, bytes_max=1 << 30, segment_bytes=1 << 20, queue_bytes_max=1 << 20)
    complete(spool, 1000)  # nobody takes them yet
    counters = spool.counters
    assert spool.queue_bytes <= 1 << 20
    assert counters.dropped_records["queue"] > 0
    assert counters.dropped_marks["queue"] > 0
    spool.start()
    settle(spool)
    complete(spool, 1)
    assert spool.stop(5)
    frames = read(spool)
    records = [split_completed(frame.payload) for frame in frames if frame.type == COMPLETED]
    assert len([record for record in records if record[0] == BARE and not record[1]]) == counters.dropped_bodies["queue"] > 0
    assert records[0][1] == records[-1][1] == b"b" * 10_000
    assert len(dropped_by_gaps(frames)) == counters.dropped_records["queue"]
    assert_conserved(spool)


def test_stop_keeps_its_deadline_when_the_disk_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", lambda _: time.sleep(1))
    spool = started(tmp_path)
    complete(spool, 1)
    begun = time.monotonic()
    assert spool.stop(0.1) is False
    assert time.monotonic() - begun < 0.8
    assert spool.stop(5)
    assert spool.counters.written_records == 1
