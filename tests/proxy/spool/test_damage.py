"""Whatever happens to a segment's bytes, the reader gives a part of what was written, in order, and nothing else."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.spool import Frame, FrameType, SpoolDamaged, SpoolReader, segments, split_completed
from proxy.spool.folder import segment_path
from proxy.spool.frames import completed_payload, encode, seed_of

SPOOL, OTHER = "a" * 32, "b" * 32
Written = tuple[int, int, bytes]
Damage = tuple[str, int, int, bytes]  # what, in which segment, where, garbage
WHAT = ["flip", "cut", "zero", "delete", "empty", "garbage"]


def frame(sequence: int, payload: bytes, spool: str = SPOOL, kind: int = FrameType.COMPLETED) -> bytes:
    return b"".join(encode(seed_of(spool), kind, sequence, (payload,)))


# Payloads that look like the spool's own bytes: frames of another spool, heads, runs of zeros.
payloads = st.one_of(
    st.binary(max_size=200),
    st.builds(frame, st.integers(0, 50), st.binary(max_size=40), st.just(OTHER)),
    st.integers(0, 300).map(bytes),
    st.integers(1, 30).map(lambda count: b"\x10\0\0\0\0\0\0\0\3\1\0\0\0\0\0\0\0" * count),
)
spool_contents = st.lists(st.lists(payloads, min_size=1, max_size=8), min_size=1, max_size=4)
damages = st.lists(
    st.tuples(
        st.sampled_from(WHAT),
        st.integers(0, 3),
        st.integers(0, 5000),
        st.binary(max_size=40),
    ),
    max_size=4,
)


@contextmanager
def spool_of(contents: list[list[bytes]]) -> Iterator[tuple[Path, dict[int, list[Written]]]]:
    """A folder with these segments, and by segment what is in it."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / SPOOL
        folder.mkdir()
        written: dict[int, list[Written]] = {}
        number = 0
        for group in contents:
            held = [(1 + k % 4, number + k, payload) for k, payload in enumerate(group)]
            written[number] = held
            segment_path(folder, number).write_bytes(b"".join(frame(sequence, payload, kind=kind) for kind, sequence, payload in held))
            number += len(group)
        yield folder, written


def damage(folder: Path, what: str, which: int, where: int, garbage: bytes) -> int | None:
    """The segment that was damaged."""
    found = segments(folder)
    if not found:
        return None
    segment = found[which % len(found)]
    path = segment_path(folder, segment)
    data = bytearray(path.read_bytes())
    at = where % (len(data) or 1)
    if what == "delete":
        path.unlink()
        return segment
    if what == "flip" and data:
        data[at] ^= 1 << (where % 8)
    elif what == "zero":
        data[at : at + 60] = bytes(len(data[at : at + 60]))
    elif what in {"cut", "garbage", "empty"}:
        data = data[: 0 if what == "empty" else at] + (garbage if what == "garbage" else b"")
    path.write_bytes(data)
    return segment


def read(reader: SpoolReader) -> list[Frame]:
    frames: list[Frame] = []
    while more := reader.read(3, 200):
        frames += more
    return frames


def as_written(frames: list[Frame]) -> list[Written]:
    return [(int(found.type), found.sequence, bytes(found.payload)) for found in frames]


@settings(deadline=None, max_examples=400)
@given(spool_contents, damages)
def test_a_damaged_spool_yields_a_part_of_what_was_written_in_order(
    contents: list[list[bytes]], done: list[tuple[str, int, int, bytes]]
) -> None:
    with spool_of(contents) as (folder, written):
        touched = {damage(folder, *each) for each in done}
        reader = SpoolReader(folder, sealed=True)
        found = as_written(read(reader))
        reader.close()
    everything = [each for group in written.values() for each in group]
    remaining = iter(everything)
    assert all(each in remaining for each in found), "a frame that was never written, or out of order"
    intact = [each for segment, group in written.items() if segment not in touched for each in group]
    assert [each for each in found if each in intact] == intact
    if touched <= {None}:
        assert reader.corrupt_bytes == 0


@settings(deadline=None, max_examples=200)
@given(st.lists(payloads, min_size=1, max_size=8), st.data())
def test_a_flipped_bit_costs_one_frame(group: list[bytes], data: st.DataObject) -> None:
    with spool_of([group]) as (folder, written):
        path = segment_path(folder, 0)
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        reader = SpoolReader(folder, sealed=True)
        found = as_written(read(reader))
        reader.close()
    end, expected, lost = 0, [], 0
    for each in written[0]:
        begin, end = end, end + 17 + len(each[2])
        if begin <= at < end:
            lost = end - begin
        else:
            expected.append(each)
    assert found == expected
    assert reader.corrupt_bytes == lost


@settings(deadline=None, max_examples=200)
@given(spool_contents, st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_a_living_reader_agrees_for_any_split_of_the_bytes(contents: list[list[bytes]], pieces: list[int]) -> None:
    with spool_of(contents) as (folder, written):
        source = {segment: segment_path(folder, segment).read_bytes() for segment in written}
        for segment in written:
            segment_path(folder, segment).unlink()
        reader = SpoolReader(folder)
        found: list[Frame] = []
        turn = 0
        for segment, data in source.items():
            with segment_path(folder, segment).open("ab", buffering=0) as file:
                at = 0
                while at < len(data):
                    size = pieces[turn % len(pieces)]
                    turn += 1
                    file.write(data[at : at + size])
                    at += size
                    found += read(reader)
        assert as_written(found) == [each for group in written.values() for each in group]
        assert reader.corrupt_bytes == 0
        reader.close()


def test_a_damaged_length_that_leads_to_a_later_frame_costs_one_frame() -> None:
    with spool_of([[b"", b"", b"12", b"", b"x" * 28, b"last"]]) as (folder, _):
        path = segment_path(folder, 0)
        data = bytearray(path.read_bytes())
        data[0] = 17 + 17 + 2  # the fourth frame begins there
        path.write_bytes(data)
        for sealed in (False, True):
            reader = SpoolReader(folder, sealed=sealed)
            assert [found.sequence for found in read(reader)] == [1, 2, 3, 4, 5]
            assert reader.corrupt_bytes == 17
            reader.close()


def test_a_lure_in_a_damaged_body_does_not_hide_the_frame_behind_it() -> None:
    """The search gives up in bytes made to look like heads; the damaged frame's own length still leads on."""
    lure = b"\0\0\x10\0" + bytes(4) + b"\3" + bytes(8)
    with spool_of([[lure * 250_000, b"behind"]]) as (folder, _):
        path = segment_path(folder, 0)
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        path.write_bytes(data)
        reader = SpoolReader(folder, sealed=True)
        assert [found.sequence for found in read(reader)] == [1]
        reader.close()


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=3000))
def test_garbage_is_no_frame_and_no_record(garbage: bytes) -> None:
    with spool_of([[b"x"]]) as (folder, _):
        segment_path(folder, 0).write_bytes(garbage)
        reader = SpoolReader(folder, sealed=True)
        assert reader.read(10, 1000) == []
        assert reader.corrupt_bytes == len(garbage)
        reader.close()
    try:
        split_completed(garbage)
    except SpoolDamaged:
        return
    assert len(garbage) >= 12


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_record_splits_into_what_it_was_made_of(request: bytes, response: bytes) -> None:
    assert split_completed(b"".join(completed_payload(b'{"a":1}', request, response))) == ({"a": 1}, request, response)


def test_a_body_made_of_frames_is_never_taken_for_frames(tmp_path: Path) -> None:
    """Torn in the middle of a body that a caller filled with frames: without the spool's id in the checksum they would pass."""
    forged = frame(7, b"forged", OTHER) * 50
    with spool_of([[b"first", forged]]) as (folder, _):
        path = segment_path(folder, 0)
        path.write_bytes(path.read_bytes()[:-40])
        reader = SpoolReader(folder, sealed=True)
        assert [found.sequence for found in read(reader)] == [0]
        reader.close()


def test_a_living_reader_waits_at_a_bad_frame_until_a_later_segment_proves_it(tmp_path: Path) -> None:
    with spool_of([[b"one", b"two"], [b"three"]]) as (folder, _):
        later = segment_path(folder, 2)
        hidden = later.rename(folder / "hidden")
        path = segment_path(folder, 0)
        path.write_bytes(path.read_bytes()[:-1])
        reader = SpoolReader(folder)
        assert [found.sequence for found in read(reader)] == [0]
        assert reader.read(1, 1) == []
        assert reader.corrupt_bytes == 0
        hidden.rename(later)
        assert [found.sequence for found in read(reader)] == [2]
        assert reader.corrupt_bytes == 19
        reader.close()


def test_a_frame_that_became_whole_while_the_reader_looked_is_not_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    with spool_of([[b"one", b"two"], [b"three"]]) as (folder, _):
        hidden = segment_path(folder, 2).rename(folder / "hidden")
        path = segment_path(folder, 0)
        data = path.read_bytes()
        path.write_bytes(data[:-1])

        def writer_goes_on(where: Path) -> list[int]:
            if hidden.exists() and path.stat().st_size < len(data):
                path.write_bytes(data)
                hidden.rename(segment_path(folder, 2))
            return segments(where)

        reader = SpoolReader(folder)
        assert reader.read(1, 1)[0].sequence == 0
        monkeypatch.setattr("proxy.spool.folder.segments", writer_goes_on)
        assert [found.sequence for found in read(reader)] == [1, 2]
        assert reader.corrupt_bytes == 0
        reader.close()


def test_a_living_reader_passes_a_bad_frame_when_a_valid_one_stands_behind_it(tmp_path: Path) -> None:
    with spool_of([[b"one", b"two", b"three"]]) as (folder, _):
        path = segment_path(folder, 0)
        data = bytearray(path.read_bytes())
        data[20 + 18] ^= 1
        path.write_bytes(data)
        reader = SpoolReader(folder)
        assert [found.sequence for found in read(reader)] == [0, 2]
        assert reader.corrupt_bytes == 20
        reader.close()


def test_a_living_reader_passes_a_bad_length_once_enough_stands_behind_it(tmp_path: Path) -> None:
    with spool_of([[b"one", *[b"x" * 1000] * 80]]) as (folder, _):
        path = segment_path(folder, 0)
        data = bytearray(path.read_bytes())
        data[2] ^= 0xFF  # a length beyond the end
        path.write_bytes(data[:10_000])
        reader = SpoolReader(folder)
        assert reader.read(10, 10_000) == []
        path.write_bytes(data)
        assert [found.sequence for found in read(reader)] == list(range(1, 81))
        assert reader.corrupt_bytes == 20
        reader.close()


def test_what_is_no_segment_is_passed_over(tmp_path: Path) -> None:
    with spool_of([[b"one"], [b"two"], [b"three"]]) as (folder, written):
        (folder / "notes.txt").write_bytes(b"foreign")
        (folder / "1.seg").write_bytes(b"foreign")
        (folder / "journal").mkdir()
        segment_path(folder, 1).rename(folder / "elsewhere")
        segment_path(folder, 1).mkdir()
        os.mkfifo(segment_path(folder, 5))
        segment_path(folder, 6).symlink_to(folder / "elsewhere")
        segment_path(folder, 7).write_bytes(b"")
        segment_path(folder, 8).write_bytes(frame(0, b"of another spool", OTHER))
        reader = SpoolReader(folder, sealed=True)
        assert as_written(read(reader)) == [*written[0], *written[2]]
        assert reader.corrupt_bytes == 17 + len(b"of another spool")
        reader.close()


def test_a_disk_that_cannot_be_read_is_told_and_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    with spool_of([[b"one"]]) as (folder, _):
        reader = SpoolReader(folder, sealed=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", refuse)
            with pytest.raises(SpoolDamaged):
                reader.read(1, 1)
        assert len(reader.read(1, 1)) == 1
        reader.close()


def test_frames_before_an_error_of_the_disk_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Path, *rest: int) -> int:
        if path == segment_path(folder, 2):
            raise OSError(5, "Input/output error")
        return real(path, *rest)

    with spool_of([[b"one", b"two"], [b"three"]]) as (folder, _):
        reader = SpoolReader(folder, sealed=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            assert [found.sequence for found in reader.read(10, 1000)] == [0, 1]
            with pytest.raises(SpoolDamaged):
                reader.read(10, 1000)
        assert [found.sequence for found in reader.read(10, 1000)] == [2]
        reader.close()


def test_a_search_through_bytes_made_to_look_like_heads_is_bounded() -> None:
    """Every 17 bytes a head that claims a megabyte: the work is limited, and the segment given up."""
    lure = b"\0\0\x10\0" + bytes(4) + b"\3" + bytes(8)
    with spool_of([[lure * 250_000]]) as (folder, _):
        path = segment_path(folder, 0)
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.write_bytes(data)
        reader = SpoolReader(folder, sealed=True)
        assert reader.read(1, 1) == []
        assert reader.corrupt_bytes == len(data)
        reader.close()
