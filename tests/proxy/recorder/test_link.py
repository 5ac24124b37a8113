"""The real recorder: what was handed to it comes to the disk once, whoever is killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clearpane.contract.identifiers import new_request_id, new_spool_id
from proxy.recorder import link as links
from proxy.recorder.link import RecorderLink
from proxy.recorder.note import Kind
from proxy.recorder.start import Start
from proxy.spool import ADMITTED, COMPLETED, GAP, Frame, SpoolReader, claim, split_completed

PLAN = json.dumps(
    {
        "client_request_id": None, "method": "POST", "path": "/v1/x", "headers": {}, "omitted": [], "caller": {},
        "trace": {"trace_id": None, "span_id": None, "parent_span_id": None, "x_request_id": None}, "target": {},
    }
).encode()  # fmt: skip
KEY = b"sk-the-callers-own-key-0123456789"


def admitted(sequence: int) -> tuple[Any, ...]:
    return (int(Kind.ADMITTED), sequence, PLAN, new_request_id(), 1, 1, None)


def completed(sequence: int, body: bytes) -> tuple[Any, ...]:
    side = (len(body), False, None, [body])
    answer = (1.0, 0.1, 2.0, 200, b"\r\nContent-Type: application/json\r\n")
    return (
        int(Kind.COMPLETED), sequence, PLAN, new_request_id(), 1, 2, None, *answer, "complete", None, 3.0,
        (1, [(2.5, len(body))], [], None, 2.5), side, side, (KEY,),
    )  # fmt: skip


def body_of(sequence: int) -> bytes:
    return b"%d:" % sequence + b"b" * (sequence * 7919 % 5000)


def start_of(root: Path, **bounds: int) -> Start:
    values = {"bytes_max": 1 << 30, "segment_bytes": 1 << 18, "queue_bytes_max": 64 << 20, **bounds}
    return Start(root=str(root), spool_id=new_spool_id(), log_level="warning", **values)


def frames_of(folder: Path) -> list[Frame]:
    reader = SpoolReader(folder, sealed=True)
    frames: list[Frame] = []
    while more := reader.read(1000, 8 << 20):
        frames += more
    reader.close()
    return frames


def assert_each_once(folder: Path, calls: int) -> None:
    frames = frames_of(folder)
    assert sorted((frame.sequence, int(frame.type)) for frame in frames) == [
        (sequence, int(kind)) for sequence in range(calls) for kind in (ADMITTED, COMPLETED)
    ]
    for frame in frames:
        if frame.type == COMPLETED:
            facts, request, response = split_completed(frame.payload)
            assert request == response == body_of(frame.sequence)
            assert facts["request"]["body_bytes"] == len(request)


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[RecorderLink]:
    found = RecorderLink(start_of(tmp_path), asyncio.get_running_loop())
    found.start()
    yield found
    if found._wake >= 0:  # the test has not stopped it
        await found.stop(20)


async def call(link: RecorderLink) -> None:
    sequence = link.admit()
    link.send(admitted(sequence))
    link.send(completed(sequence, body_of(sequence)))


async def test_every_note_is_a_frame_and_nobody_adopts_a_living_spool(link: RecorderLink, tmp_path: Path) -> None:
    for _ in range(300):
        await call(link)
    folder = tmp_path / link.spool_id
    assert claim(folder) is None
    assert await link.stop(20)
    assert_each_once(folder, 300)
    held = claim(folder)
    assert held is not None
    held.release()


def batch_is_allowed() -> bool:
    """Of the calling thread alone, which is to have no other work."""
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True


async def test_the_recorder_does_not_take_the_core_from_a_worker(link: RecorderLink, tmp_path: Path) -> None:
    assert link._child is not None
    expected = os.SCHED_BATCH if await asyncio.to_thread(batch_is_allowed) else os.SCHED_OTHER
    async with asyncio.timeout(30):
        while os.sched_getscheduler(link._child.pid) != expected:
            await asyncio.sleep(0.01)


async def test_a_body_larger_than_the_ring(link: RecorderLink, tmp_path: Path) -> None:
    body = os.urandom(3 * links.RING_BYTES)
    link.send(admitted(link.admit()))
    link.send(completed(0, body))
    assert await link.stop(20)
    (record,) = [split_completed(frame.payload) for frame in frames_of(tmp_path / link.spool_id) if frame.type == COMPLETED]
    assert record[1] == record[2] == body


async def test_memory_that_waiting_notes_took_goes_back_to_the_system(link: RecorderLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_QUIET_S", 0.1)
    body = os.urandom(3 * links.RING_BYTES)
    for sequence in range(2):
        link.send(admitted(link.admit()))
        link.send(completed(sequence, body))
        assert queue_bytes(link) > len(body)
        await asyncio.sleep(0.05)
        assert queue_bytes(link) > len(body), "it may be needed again"
        async with asyncio.timeout(20):
            while queue_bytes(link) >= links._GIVE_BYTES:
                await asyncio.sleep(0.01)
    assert await link.stop(20)


def queue_bytes(link: RecorderLink) -> int:
    """Of memory that the system has given."""
    return os.fstat(link._queue.descriptor).st_blocks * 512


async def test_the_callers_key_does_not_come_to_the_disk(link: RecorderLink, tmp_path: Path) -> None:
    link.send(admitted(link.admit()))
    link.send(completed(0, b"my key is " + KEY))
    assert await link.stop(20)
    assert KEY not in b"".join(path.read_bytes() for path in (tmp_path / link.spool_id).glob("*.seg"))


@pytest.mark.parametrize("seed", range(3))
async def test_a_recorder_that_is_killed_loses_and_doubles_nothing(link: RecorderLink, tmp_path: Path, seed: int) -> None:
    calls = 0
    for kill in range(3):
        for _ in range(400):
            await call(link)
            calls += 1
            if calls % 50 == 0:
                await asyncio.sleep(0.002 * (seed + 1))
        child = link._child
        if child is not None:
            child.send_signal(signal.SIGKILL)
        async with asyncio.timeout(20):  # the next one is there
            while link._child is None or link._child is child:
                await asyncio.sleep(0.01)
        assert claim(tmp_path / link.spool_id) is None, f"after kill {kill}"
    assert await link.stop(30)
    assert_each_once(tmp_path / link.spool_id, calls)


WORKER = """
import asyncio, sys
from pathlib import Path
from proxy.recorder.link import RecorderLink
from test_link import call, start_of

async def main():
    link = RecorderLink(start_of(Path(sys.argv[1])), asyncio.get_running_loop())
    link.start()
    for number in range(1_000_000):
        await call(link)
        print(number, flush=True)
        if link.queue_bytes > 20 << 20:
            await asyncio.sleep(0.002)

asyncio.run(main())
"""


@pytest.mark.parametrize("calls", [1, 500, 3000])  # before the recorder is there, within the ring, far into the queue
def test_a_worker_that_is_killed_loses_nothing_that_it_handed_over(tmp_path: Path, calls: int) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[3]), str(Path(__file__).parent)])
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            if int(line) >= calls:
                break
        worker.send_signal(signal.SIGKILL)
        promised = int((line + worker.stdout.read()).split()[-1]) + 1
    (folder,) = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    while (held := claim(folder)) is None:  # until the recorder has written what it was left, and is gone
        time.sleep(0.01)
    held.release()
    records = [frame.sequence for frame in frames_of(folder) if frame.type == COMPLETED]
    assert records[:promised] == list(range(promised))
    assert len(records) == len(set(records))


async def test_a_recorder_that_does_not_come_costs_bodies_first_then_records_and_states_the_gap(tmp_path: Path) -> None:
    link = RecorderLink(start_of(tmp_path, queue_bytes_max=1 << 20), asyncio.get_running_loop())
    big = b"b" * 100_000
    for _ in range(600):
        sequence = link.admit()
        link.send(admitted(sequence))
        link.send(completed(sequence, big))
    link.start()
    assert await link.stop(30)
    frames = frames_of(tmp_path / link.spool_id)
    records = {frame.sequence: split_completed(frame.payload) for frame in frames if frame.type == COMPLETED}
    whole = [sequence for sequence, (_, request, _) in records.items() if request]
    bare = [sequence for sequence, (_, request, _) in records.items() if not request]
    assert whole
    assert bare
    assert max(whole) < max(bare)
    assert all(records[sequence][0]["policy"]["dropped"] == ["request", "response"] for sequence in bare)
    assert all(records[sequence][0]["request"]["body_bytes"] == len(big) for sequence in bare)
    (gap,) = [json.loads(bytes(frame.payload)) for frame in frames if frame.type == GAP]
    assert gap["reason"] == "queue"
    missing = sorted(set(range(600)) - set(records))
    assert missing
    assert sorted(n for first, last in gap["sequences"] for n in range(first, last + 1)) == missing
