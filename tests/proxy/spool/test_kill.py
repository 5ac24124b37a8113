"""SIGKILL at any moment loses nothing that the spool's thread reported as written."""

import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy.spool import ADMITTED, COMPLETED, Frame, SpoolReader, claim, drop_spool, split_completed, spools

# Item 2n is the admission of call n, item 2n + 1 its record; how far the thread says it came stands in a shared page.
CHILD = """
import mmap, struct, sys, time
from pathlib import Path
from proxy.spool import SpoolThread
from test_kill import body_of

root, shared = Path(sys.argv[1]), open(sys.argv[2], "r+b")
page = mmap.mmap(shared.fileno(), 4096)
spool = SpoolThread(root, bytes_max=1 << 30, segment_bytes=1 << 18, queue_bytes_max=64 << 20)
spool.start()
number = 0
while True:
    while spool.queue_bytes > 1 << 20:
        struct.pack_into("<Q", page, 0, spool.written_through)
        time.sleep(0.0002)
    sequence = spool.admit(b'{"call":%d}' % number)
    spool.completed(sequence, b'{"call":%d}' % number, body_of(number), b"answer")
    number += 1
    struct.pack_into("<Q", page, 0, spool.written_through)
"""


def body_of(number: int) -> bytes:
    return b"%d" % number * (number * 7919 % 3000)


def wait_for(page: mmap.mmap, least: int) -> None:
    deadline = time.monotonic() + 20
    while watermark(page) < least:
        assert time.monotonic() < deadline, "the child wrote nothing"
        time.sleep(0.001)


def watermark(page: mmap.mmap) -> int:
    return int(struct.unpack_from("<Q", page, 0)[0])


def follow(reader: SpoolReader) -> list[Frame]:
    frames: list[Frame] = []
    while more := reader.read(1000, 1 << 20):
        frames += more
    return frames


@pytest.mark.parametrize("seed", range(8))
def test_every_frame_reported_as_written_is_read_back_after_sigkill(tmp_path: Path, seed: int) -> None:
    root, shared = tmp_path / "spool", tmp_path / "page"
    shared.write_bytes(bytes(4096))
    path = os.pathsep.join([str(Path(__file__).parents[3]), str(Path(__file__).parent)])
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(root), str(shared)], env={**os.environ, "PYTHONPATH": path})
    with shared.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as page:
        try:
            wait_for(page, 1)
            (folder,) = spools(root)
            reader = SpoolReader(folder)
            frames = follow(reader)  # beside the living writer
            time.sleep(random.Random(seed).uniform(0, 0.3))
            assert claim(folder) is None
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        promised = watermark(page)
    held = claim(folder)
    assert held is not None
    assert reader.corrupt_bytes == 0
    reader.sealed = True
    frames += follow(reader)
    reader.close()
    assert len(frames) >= promised > 0
    for index, frame in enumerate(frames):
        number, is_record = divmod(index, 2)
        assert (frame.type, frame.sequence) == (COMPLETED if is_record else ADMITTED, number)
        if is_record:
            assert split_completed(frame.payload) == ({"call": number}, body_of(number), b"answer")
    drop_spool(folder)
    held.release()
    assert spools(root) == []
