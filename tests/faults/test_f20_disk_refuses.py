"""F20: the spool's disk is full in the middle of a record, refuses writes or syncs, or takes its time.

Full is a real file system of a few MiB where one may be mounted; the other refusals are answered inside of the proxy's processes.
"""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Inside, SetUp, Tell
from tests.faults.stage import Stage

pytestmark = [pytest.mark.timeout(300), pytest.mark.full]

DISK_MIB = 24
SEGMENTS = {"CLEARPANE_SPOOL_SEGMENT_BYTES": "64KiB"}
SLOW_S = 5.0
WRITES = ("writev", "write")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path | None]:
    """The proxy's data folder on a file system of its own; None where none may be mounted."""
    folder = tmp_path / "proxy"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def full(disk: Path | None, inside: Inside) -> Iterator[None]:
    if disk is None:
        inside.tell(refuse=dict.fromkeys(WRITES, errno.ENOSPC))
        yield
        inside.tell()
        return
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1000)):
            pass
    yield
    ballast.unlink()


async def came_through(stage: Stage, tell: Tell, did: str, *, reason: str | None) -> None:
    """The fault is over. With a `reason`, records were dropped for it; without, none."""
    await stage.recorded(100)
    dropped = await stage.all_spooled()
    await stage.shipped(dropped)
    verdict = await stage.judged(dropped=dropped)
    tell("F20", did, verdict, f"{dropped} records dropped, counted")
    assert verdict.whole == verdict.calls
    assert (len(verdict.lost), verdict.recorded) == (dropped, verdict.calls - dropped)
    assert (verdict.doubled, verdict.findings) == ([], [])
    assert set(verdict.contents.ends) == {"complete"}
    if reason is None:
        assert dropped == 0
    else:
        assert await stage.proxy_metric("clearpane_shipper_dropped_total", reason=reason) == dropped > 0


async def test_a_disk_that_fills_in_mid_record(set_up: SetUp, tmp_path: Path, inside: Inside, disk: Path | None, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"), proxy=inside.environment | SEGMENTS)
    await stage.start()
    await stage.recorded(50)
    with full(disk, inside):
        await stage.counted("clearpane_proxy_spool_dropped_records_total", 100, reason="space")
    await came_through(stage, tell, f"disk full ({'tmpfs' if disk else 'answered so inside'})", reason="space")


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS], ids=errno.errorcode.get)
async def test_a_disk_that_refuses_writes(error: int, set_up: SetUp, tmp_path: Path, inside: Inside, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"), proxy=inside.environment | SEGMENTS)
    await stage.start()
    await stage.recorded(50)
    inside.tell(refuse=dict.fromkeys(WRITES, error))
    await stage.counted("clearpane_proxy_spool_dropped_records_total", 100, reason="disk_error")
    inside.tell()
    await came_through(stage, tell, f"writes answered {errno.errorcode[error]} after half of their bytes", reason="disk_error")


@pytest.mark.parametrize("how", ["refused", "slow"])
async def test_a_disk_that_does_not_sync(how: str, set_up: SetUp, tmp_path: Path, inside: Inside, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"), proxy=inside.environment | SEGMENTS)
    await stage.start()
    await stage.recorded(50)
    inside.tell(**({"refuse": {"fdatasync": errno.EIO}} if how == "refused" else {"slow_s": {"fdatasync": SLOW_S}}))
    await stage.called(600)
    inside.tell()
    did = "fdatasync answered EIO" if how == "refused" else f"fdatasync takes {SLOW_S:.0f} s"
    await came_through(stage, tell, f"{did}, {inside.times('fdatasync')} times", reason=None)
    assert inside.times("fdatasync") > 0
