import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.recorder.note import Kind, Note, Notes, encode

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 60), 1 << 60)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=10,
)


@given(st.lists(st.lists(VALUES, max_size=5).map(tuple), max_size=6), st.lists(st.integers(0, 400), max_size=10))
def test_any_split_gives_the_same_notes(notes: list[tuple[object, ...]], cuts: list[int]) -> None:
    data = b"".join(map(encode, notes))
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader = Notes(1000)
    found = [note for start, end in itertools.pairwise(places) for note in reader.feed(data[start:end])]
    assert found == notes
    assert reader.position == 1000 + len(data)


@given(st.binary(max_size=200))
def test_garbage_raises_only_what_is_said(data: bytes) -> None:
    with contextlib.suppress(ValueError, EOFError, TypeError):
        list(Notes().feed(data))


def test_an_endless_length_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than any worker writes"):
        list(Notes().feed(b"\xff\xff\xff\xff"))


def test_a_note_of_a_call_that_has_just_begun_is_short() -> None:
    (sent,) = Notes().feed(encode((int(Kind.ADMITTED), 7, b"{}", "id", 1, 2, None)))
    note = Note(*sent)
    assert (note.sequence, note.status, note.request, note.secrets, note.dropped) == (7, None, None, (), False)
