"""F21: the proxy is killed with a spool full of records, and before it comes back somebody has had his hands on them."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.spool import COMPLETED, Frame, SpoolReader, claim, segments, split_completed
from proxy.spool.folder import segment_path
from proxy.spool.frames import HEAD_BYTES
from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.timeout(300), pytest.mark.full]

SEGMENTS = {"CLEARPANE_SPOOL_SEGMENT_BYTES": "64KiB"}
CALLS = 400


async def left_behind(folder: Path) -> list[Frame]:
    """All frames, once the recorder has written what it had and let go."""
    async with asyncio.timeout(30):
        while (held := claim(folder)) is None:
            await asyncio.sleep(0.05)
    held.release()
    reader = SpoolReader(folder, sealed=True)
    frames = []
    while found := reader.read(1000, 1 << 22):
        frames += found
    reader.close()
    assert reader.corrupt_bytes == 0
    return frames


def tear(folder: Path, frames: list[Frame], dice: random.Random) -> list[Frame]:
    last = frames[-1]
    path = segment_path(folder, last.segment)
    path.write_bytes(path.read_bytes()[: -dice.randrange(1, HEAD_BYTES + len(last.payload))])
    return [last]


def flip(folder: Path, frames: list[Frame], dice: random.Random) -> list[Frame]:
    """A bit in each of three."""
    chosen = dice.sample(frames, 3)
    for frame in chosen:
        path = segment_path(folder, frame.segment)
        data = bytearray(path.read_bytes())
        data[frame.end - 1 - dice.randrange(HEAD_BYTES + len(frame.payload))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
    return chosen


def remove(folder: Path, frames: list[Frame], dice: random.Random) -> list[Frame]:
    """A segment in the middle."""
    segment = dice.choice(segments(folder)[1:-1])
    segment_path(folder, segment).unlink()
    return [frame for frame in frames if frame.segment == segment]


def empty(folder: Path, frames: list[Frame], dice: random.Random) -> list[Frame]:
    """A segment of no bytes, as a file system may have it after the power was gone, and a journal."""
    segment = dice.choice(segments(folder)[1:-1])
    segment_path(folder, segment).write_bytes(b"")
    for path in (folder / "journal").iterdir():
        path.write_bytes(b"")
    return [frame for frame in frames if frame.segment == segment]


def litter(folder: Path, frames: list[Frame], dice: random.Random) -> list[Frame]:
    """Files that are none of ours, in the spool and beside it."""
    garbage = dice.randbytes(5000)
    for path in (folder / "notes.txt", segment_path(folder, 10**9), folder.parent / "core", folder / "1.seg"):
        path.write_bytes(garbage)
    segment_path(folder, 10**9 + 1).mkdir()
    (folder.parent / ("0" * 32)).mkdir()
    (folder.parent / ("1" * 32)).write_bytes(b"")
    return []


DAMAGES = (tear, flip, remove, empty, litter)
Damage = Callable[[Path, list[Frame], random.Random], list[Frame]]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda found: found.__name__)
async def test_what_is_not_damaged_arrives_and_the_rest_is_counted(
    damage: Damage, set_up: SetUp, tmp_path: Path, tell: Tell, dice: random.Random
) -> None:
    stage = set_up(str(tmp_path / "lake"), proxy=SEGMENTS)
    await stage.start(consumers=0)
    await stage.called(CALLS)
    assert await stage.all_spooled() == 0
    (folder,) = stage.spools
    stage.proxy.kill()
    frames = await left_behind(folder)
    touched = damage(folder, frames, dice)
    await stage.member(intake=True).ready()
    await stage.next_proxy()
    stage.go_on()
    await stage.recorded(100)
    lost = {split_completed(frame.payload)[0]["client_request_id"] for frame in touched if frame.type == COMPLETED}
    verdict = await stage.judged(dropped=len(lost))
    await stage.adopted(folder)
    corrupt = int(await stage.proxy_metric("clearpane_shipper_corrupt_bytes_total"))
    interrupted = verdict.contents.ends["interrupted"] - verdict.contents.placeholders
    seen = f"{len(touched)} frames hit, {corrupt} bytes counted; {interrupted} calls known by their beginning alone"
    seen += f", {verdict.contents.placeholders} by their number"
    tell("F21", f"proxy killed, then: {damage.__name__}", verdict, seen)
    assert verdict.whole == verdict.calls
    assert (verdict.doubled, verdict.findings) == ([], [])
    assert set(verdict.lost) <= lost
    assert interrupted == len(lost) - len(verdict.lost)
    assert bool(corrupt) == (damage in (tear, flip, litter))
