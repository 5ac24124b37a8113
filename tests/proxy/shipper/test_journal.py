"""Journal: what was written is there again, whole batches only, whatever the disk and the death of the process do."""

import resource
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.shipper import journal
from proxy.shipper.journal import Journal

entries = st.lists(st.tuples(st.sampled_from("khdem"), st.integers(0, 9), st.text(max_size=5)).map(list), min_size=1, max_size=4)


@given(batches=st.lists(entries, max_size=6), cut=st.integers(0, 400), flip=st.integers(0, 400))
def test_any_cut_and_any_damage_gives_whole_batches(batches: list[list[Any]], cut: int, flip: int) -> None:
    data = b"".join(journal.encode(batch) for batch in batches)
    assert journal.decode(data) == (batches, len(data))
    found, used = journal.decode(data[:cut])
    assert found == batches[: len(found)]
    assert used <= cut
    damaged = bytearray(data)
    if flip < len(damaged):
        damaged[flip] ^= 0x40
        found, _ = journal.decode(bytes(damaged))
        assert found == batches[: len(found)]
        assert len(found) < len(batches)


@given(st.binary(max_size=200))
def test_garbage_is_no_batch(data: bytes) -> None:
    found, used = journal.decode(data)
    assert used <= len(data)
    assert journal.decode(struct.pack("<II", 0, 0) + data) == ([], 0)
    assert (used == 0) == (not found)


def opened(folder: Path, snapshot: list[Any]) -> Journal:
    found = Journal(folder)
    found.load()
    found.rewrite(snapshot)
    return found


def test_what_was_appended_is_loaded(tmp_path: Path) -> None:
    first = opened(tmp_path, [["s", 1]])
    first.append([["k", 1, 2, 3]], durable=True)
    first.append([["d", [1]]], durable=False)
    first.close()
    second = Journal(tmp_path)
    assert second.load() == [["s", 1], ["k", 1, 2, 3], ["d", [1]]]
    second.rewrite([["s", 2]])
    second.close()
    assert Journal(tmp_path).load() == [["s", 2]]
    assert len(list((tmp_path / "journal").iterdir())) == 1


def test_a_torn_tail_is_cut_and_told(tmp_path: Path) -> None:
    first = opened(tmp_path, [["s", 1]])
    first.append([["k", 1]], durable=True)
    first.close()
    (file,) = (tmp_path / "journal").iterdir()
    with file.open("ab") as stream:
        stream.write(journal.encode([["k", 2]])[:-3])
    second = Journal(tmp_path)
    assert second.load() == [["s", 1], ["k", 1]]
    assert second.damaged_bytes > 0


def test_a_rewrite_that_was_cut_short_changes_nothing(tmp_path: Path) -> None:
    opened(tmp_path, [["s", 1]]).close()
    (tmp_path / "journal" / "new").write_bytes(b"half a snapsh")
    second = Journal(tmp_path)
    assert second.load() == [["s", 1]]
    second.rewrite([["s", 2]])
    second.close()
    assert Journal(tmp_path).load() == [["s", 2]]


def test_after_an_error_only_a_new_file_takes_more(tmp_path: Path) -> None:
    found = opened(tmp_path, [["s", 1]])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (found.bytes + 10, hard))
        with pytest.raises(OSError, match="large"):
            found.append([["k", "x" * 100]], durable=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert found.broken
    with pytest.raises(OSError, match="descriptor"):
        found.append([["k", 1]], durable=True)
    found.rewrite([["s", 1], ["k", 1]])
    found.append([["k", 2]], durable=True)
    assert Journal(tmp_path).load() == [["s", 1], ["k", 1], ["k", 2]]


def test_it_does_not_grow_without_bound(tmp_path: Path) -> None:
    found = opened(tmp_path, [["s", 1]])
    for number in range(60_000):
        found.append([["d", [number]]], durable=False)
        if found.overgrown:
            found.rewrite([["s", number]])
    assert sum(path.stat().st_size for path in (tmp_path / "journal").iterdir()) < 2 << 20
    assert len(list((tmp_path / "journal").iterdir())) == 1
