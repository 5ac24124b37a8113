"""The spool as the worker and the shipper use it."""

import fcntl
import shutil
from pathlib import Path

import orjson
import pytest

from proxy.spool import (
    ADMITTED,
    COMPLETED,
    STARTED,
    Frame,
    SpoolDamaged,
    SpoolReader,
    SpoolThread,
    claim,
    drop_segment,
    drop_spool,
    segments,
    split_completed,
    spools,
)


def thread(root: Path, *, bytes_max: int = 1 << 30, segment_bytes: int = 1 << 20, queue_bytes_max: int = 64 << 20) -> SpoolThread:
    return SpoolThread(root, bytes_max=bytes_max, segment_bytes=segment_bytes, queue_bytes_max=queue_bytes_max)


def read_all(folder: Path, *, sealed: bool = True) -> list[Frame]:
    reader = SpoolReader(folder, sealed=sealed)
    frames: list[Frame] = []
    while more := reader.read(100, 1 << 20):
        frames += more
    reader.close()
    assert reader.corrupt_bytes == 0
    return frames


def test_what_was_handed_over_is_read_back_in_order(tmp_path: Path) -> None:
    spool = thread(tmp_path / "spool")
    spool.start()
    for number in range(3):
        facts = orjson.dumps({"call": number})
        assert spool.admit(facts) == number
        spool.started(number, facts)
        spool.completed(number, facts, b"question %d" % number, b"answer" * number)
    assert spool.stop(5)
    frames = read_all(spool.folder)
    assert [(frame.type, frame.sequence) for frame in frames] == [(kind, n) for n in range(3) for kind in (ADMITTED, STARTED, COMPLETED)]
    assert orjson.loads(frames[3].payload) == {"call": 1}
    assert split_completed(frames[8].payload) == ({"call": 2}, b"question 2", b"answeranswer")
    counters = spool.counters
    assert (counters.admitted, counters.started, counters.completed, counters.written_records) == (3, 3, 3, 3)
    assert spool.written_through == 9
    assert spool.queue_bytes == 0


def test_segments_are_named_by_their_first_frame_and_reading_can_start_at_any(tmp_path: Path) -> None:
    spool = thread(tmp_path, segment_bytes=4096)
    spool.start()
    for number in range(100):
        spool.completed(number, b"{}", b"x" * 300, b"")
    assert spool.stop(5)
    found = segments(spool.folder)
    assert len(found) > 5
    frames = read_all(spool.folder)
    assert [frame.sequence for frame in frames] == list(range(100))
    assert all(frames[segment].segment == segment for segment in found)
    assert all(path.stat().st_size <= 4096 for path in spool.folder.glob("*.seg"))
    middle = frames[50]
    reader = SpoolReader(spool.folder, middle.segment, middle.end)
    assert reader.read(1, 1)[0].sequence == 51
    assert reader.position == (frames[51].segment, frames[51].end)


def test_dropped_segments_are_passed_over(tmp_path: Path) -> None:
    spool = thread(tmp_path, segment_bytes=4096)
    spool.start()
    for number in range(100):
        spool.completed(number, b"{}", b"x" * 300, b"")
    assert spool.stop(5)
    found = segments(spool.folder)
    drop_segment(spool.folder, found[0])
    drop_segment(spool.folder, found[2])
    expected = [n for n in range(100) if not (n < found[1] or found[2] <= n < found[3])]
    assert [frame.sequence for frame in read_all(spool.folder)] == expected


def test_read_is_bounded_by_frames_and_by_bytes_but_gives_one_large_frame(tmp_path: Path) -> None:
    spool = thread(tmp_path, segment_bytes=1 << 20)
    spool.start()
    for size in (10, 10, 3 << 20, 10):
        spool.completed(0, b"{}", b"x" * size, b"")
    assert spool.stop(5)
    reader = SpoolReader(spool.folder, sealed=True)
    assert len(reader.read(1, 1 << 20)) == 1
    assert len(reader.read(10, 1000)) == 1
    assert len(reader.read(10, 1000)[0].payload) > 3 << 20
    assert len(reader.read(10, 1000)) == 1
    assert reader.read(10, 1000) == []


def test_the_living_writers_lock_is_held_before_the_folder_can_be_seen(tmp_path: Path) -> None:
    spool = thread(tmp_path)
    spool.start()
    while not (found := spools(tmp_path)):
        pass
    assert found == [spool.folder]
    assert claim(spool.folder) is None
    assert spool.stop(5)
    first = claim(spool.folder)
    assert first is not None
    assert claim(spool.folder) is None
    first.release()
    again = claim(spool.folder)
    assert again is not None
    again.release()


def test_a_folder_without_a_lock_can_be_claimed_and_one_that_is_gone_can_not(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 32)
    assert claim(folder) is None
    folder.mkdir()
    held = claim(folder)
    assert held is not None
    drop_spool(folder)
    assert not folder.exists()
    assert claim(folder) is None
    held.release()
    drop_spool(folder)


def test_drop_spool_takes_everything_with_it(tmp_path: Path) -> None:
    folder = tmp_path / ("b" * 32)
    (folder / "journal" / "deep").mkdir(parents=True)
    (folder / "journal" / "deep" / "file").write_bytes(b"x")
    (folder / "00000000000000000000.seg").write_bytes(b"x")
    (folder / "foreign").write_bytes(b"x")
    drop_spool(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_spool_was_removed_meanwhile_is_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, flock = tmp_path / ("c" * 32), fcntl.flock
    folder.mkdir()

    def removed_first(descriptor: int, how: int) -> None:
        drop_spool(folder)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    assert claim(folder) is None


def test_drop_spool_cut_short_leaves_no_segment_without_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("d" * 32)
    (folder / "journal").mkdir(parents=True)
    (folder / "lock").touch()
    for number in range(3):
        (folder / f"{number:020d}.seg").write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda _: (_ for _ in ()).throw(OSError("broken")))
        with pytest.raises(OSError, match="broken"):
            drop_spool(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["journal", "lock"]
    drop_spool(folder)
    assert not folder.exists()


def test_spools_are_listed_oldest_first_and_nothing_else_is(tmp_path: Path) -> None:
    assert spools(tmp_path / "missing") == []
    names = ["0" * 31 + "2", "0" * 31 + "1", "notes", ".0" + "0" * 30]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / ("0" * 31 + "3")).write_bytes(b"a file")
    assert [path.name for path in spools(tmp_path)] == sorted(names[:2])


def test_a_reader_follows_a_living_writer(tmp_path: Path) -> None:
    spool = thread(tmp_path, segment_bytes=8192)
    spool.start()
    reader = SpoolReader(spool.folder)
    seen: list[int] = []
    for number in range(2000):
        spool.completed(number, b"{}", b"q" * 100, b"a" * (number % 700))
        if number % 7 == 0:
            seen += [frame.sequence for frame in reader.read(50, 1 << 20)]
    assert spool.stop(5)
    reader.sealed = True
    while frames := reader.read(50, 1 << 20):
        seen += [frame.sequence for frame in frames]
    assert seen == list(range(2000))
    assert reader.corrupt_bytes == 0


@pytest.mark.parametrize("payload", [b"", b"\1\0\0", b"\xff\xff\xff\xff", b"\2\0\0\0{}" + b"\0" * 7, b"\2\0\0\0[]" + b"\0" * 8])
def test_a_record_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(SpoolDamaged):
        split_completed(payload)


def test_after_stop_nothing_is_taken_and_that_is_counted(tmp_path: Path) -> None:
    spool = thread(tmp_path)
    spool.start()
    assert spool.stop(5)
    assert spool.admit(b"{}") == 0
    spool.completed(0, b"{}", b"", b"")
    assert spool.counters.dropped_marks["queue"] == 1
    assert spool.counters.dropped_records["queue"] == 1
    assert spool.stop(5)
