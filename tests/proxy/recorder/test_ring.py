from hypothesis import given
from hypothesis import strategies as st

from proxy.recorder.ring import Ring

CAPACITY = 64


@given(st.lists(st.tuples(st.binary(max_size=100), st.integers(0, 100)), max_size=60))
def test_what_goes_in_comes_out_and_unsettled_bytes_are_never_overwritten(steps: list[tuple[bytes, int]]) -> None:
    writer = Ring.create(CAPACITY)
    reader = Ring(writer.descriptor, CAPACITY)
    put = settled = 0
    everything = b""
    for data, settle in steps:
        found_room = writer.put(data)
        assert found_room == min(len(data), CAPACITY - (put - settled))
        everything += data[:found_room]
        put += found_room
        assert reader.read(settled) == everything[settled:]
        settled = min(settled + settle, put)
        reader.settle(settled)
        assert writer.settled == settled
    writer.close()
    reader.close()


def test_a_second_reader_begins_where_the_first_had_not_settled() -> None:
    writer = Ring.create(CAPACITY)
    first = Ring(writer.descriptor, CAPACITY)
    writer.put(b"one two three")
    assert first.read(0) == b"one two three"
    first.settle(4)
    first.close()
    second = Ring(writer.descriptor, CAPACITY)
    assert second.read(second.settled) == b"two three"
    second.close()
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
