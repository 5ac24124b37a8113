"""A disk that is really full: the journal still takes what has to be written down."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.shipper.journal import Journal
from proxy.shipper.ledger import Ledger
from proxy.shipper.reserve import Reserve

SPOOL = "spool/01a1fdba0000700080000000000000aa"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB of this test's own."""
    if os.geteuid() != 0 and os.environ.get("CI") != "true":
        pytest.skip("mounting a file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


async def test_a_full_disk_still_takes_the_journal(small_disk: Path) -> None:
    (small_disk / SPOOL).mkdir(parents=True)
    reserve = Reserve(small_disk, size=1 << 20)
    reserve.keep()
    ledger = Ledger(small_disk / SPOOL)
    await ledger.open()
    fill(small_disk)
    assert os.statvfs(small_disk).f_bavail == 0
    entries = [["k", number, "x" * 100] for number in range(2000)]  # more than the open page takes
    await ledger.write(entries, frames=frozenset())
    await ledger.close()
    assert entries[0] in Journal(small_disk / SPOOL).load()
    assert not (small_disk / "reserve").exists()


async def test_a_shipper_can_start_on_a_full_disk(small_disk: Path) -> None:
    (small_disk / SPOOL).mkdir(parents=True)
    Reserve(small_disk, size=1 << 20).keep()
    fill(small_disk)
    ledger = Ledger(small_disk / SPOOL)
    await ledger.open()
    await ledger.close()


def test_it_is_made_again_when_there_is_room(small_disk: Path) -> None:
    reserve = Reserve(small_disk, size=1 << 20)
    reserve.keep()
    assert (small_disk / "reserve").stat().st_blocks * 512 >= 1 << 20
    assert reserve.give()
    assert not reserve.give()
    fill(small_disk)
    reserve.keep()
    assert not (small_disk / "reserve").exists()
    (small_disk / "filler").unlink()
    reserve.keep()
    assert (small_disk / "reserve").exists()
