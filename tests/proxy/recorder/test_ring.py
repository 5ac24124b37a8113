import mmap

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


@given(st.lists(st.integers(1, 5 * mmap.PAGESIZE), min_size=1, max_size=12))
def test_memory_that_was_given_back_is_only_that_of_settled_bytes(sizes: list[int]) -> None:
    capacity = 8 * mmap.PAGESIZE
    writer = Ring.create(capacity)
    reader = Ring(writer.descriptor, capacity)
    position = 0
    for number, size in enumerate(sizes):
        data = bytes([number + 1]) * size
        behind = b"!" * min(mmap.PAGESIZE, capacity - size)
        assert writer.put(data)
        assert writer.put(behind)
        assert reader.read(position, position + size) == data
        reader.settle(position + size, release=True)
        position += size
        assert reader.read(position, reader.written) == behind
        position = reader.written
        reader.settle(position, release=True)
    reader.close()
    writer.close()


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
