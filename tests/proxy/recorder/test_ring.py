import mmap
import os

from hypothesis import given
from hypothesis import strategies as st

from proxy.recorder.ring import Ring

CAPACITY = 64


@given(st.lists(st.tuples(st.binary(max_size=100), st.integers(0, 100)), max_size=60))
def test_what_goes_in_comes_out_and_unsettled_bytes_are_never_overwritten(steps: list[tuple[bytes, int]]) -> None:
    writer = Ring.create(CAPACITY)
    reader = Ring(writer.descriptor, CAPACITY)
    settled = 0
    everything = b""
    for data, settle in steps:
        fits = len(data) <= CAPACITY - (len(everything) - settled)
        assert writer.put(data) == fits
        everything += data if fits else b""
        assert reader.written == len(everything)
        assert reader.read(settled, reader.written) == everything[settled:]
        settled = min(settled + settle, len(everything))
        reader.settle(settled)
        assert writer.settled == settled
        assert writer.used_bytes == len(everything) - settled
    writer.close()
    reader.close()


def test_a_second_reader_begins_where_the_first_had_not_settled() -> None:
    writer = Ring.create(CAPACITY)
    first = Ring(writer.descriptor, CAPACITY)
    assert writer.put(b"one two three")
    assert first.read(0, first.written) == b"one two three"
    first.settle(4)
    first.close()
    second = Ring(writer.descriptor, CAPACITY)
    assert second.read(second.settled, second.written) == b"two three"
    second.close()
    writer.close()


def test_memory_that_was_given_back_is_the_systems_until_it_is_written_again() -> None:
    capacity = 8 * mmap.PAGESIZE
    writer = Ring.create(capacity)
    reader = Ring(writer.descriptor, capacity)
    kept = used_pages(writer)
    for turn in range(3):
        data = bytes([turn + 1]) * (capacity - 100)  # each turn at another place
        assert writer.put(data)
        assert reader.read(reader.settled, reader.written) == data
        reader.settle(reader.written)
        assert used_pages(writer) >= kept + 7
        for place in range(0, capacity, 3 * mmap.PAGESIZE):
            writer.release(place, 3 * mmap.PAGESIZE)
        assert used_pages(writer) == 1  # the positions'
    reader.close()
    writer.close()


def used_pages(ring: Ring) -> int:
    return os.fstat(ring.descriptor).st_blocks * 512 // mmap.PAGESIZE


def test_the_writer_sees_that_the_reader_sleeps() -> None:
    writer = Ring.create(CAPACITY)
    reader = Ring(writer.descriptor, CAPACITY)
    assert not writer.reader_sleeps
    reader.sleep(True)
    assert writer.reader_sleeps
    reader.sleep(False)
    assert not writer.reader_sleeps
    reader.close()
    writer.close()
