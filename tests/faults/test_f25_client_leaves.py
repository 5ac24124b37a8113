"""F25: a client that leaves at each moment. The bytes: tests/e2e/test_transparency_breaks.py; here what is recorded, once."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.wire import Origin, Wire, connect, read_answer
from tests.faults.conftest import SetUp, Tell
from tests.faults.scripted import CHUNKED, EVENTS, Script, chunk, note, recorded, request, upstream
from tests.faults.stage import Stage

pytestmark = [pytest.mark.timeout(240), pytest.mark.full]

EVENT = b'data: {"id":"c","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
QUIET_S = 0.3  # without a byte more: then the buffers on the way are full


async def stream(wire: Wire) -> None:
    await wire.write(EVENTS + CHUNKED)
    while wire.end is None and not wire.transport.is_closing():
        await wire.write(chunk(EVENT))
        await asyncio.sleep(0.01)


async def short(wire: Wire) -> None:
    await wire.write(EVENTS + CHUNKED, chunk(EVENT), b"0\r\n\r\n")


class Flood:
    """More than all buffers on the way hold: `written` stands still when the proxy reads no more."""

    def __init__(self) -> None:
        self.written = 0

    async def __call__(self, wire: Wire) -> None:
        await wire.write(EVENTS + CHUNKED)
        while wire.end is None and not wire.transport.is_closing():
            await wire.write(chunk(EVENT * 1000))
            self.written += 1

    async def stands_still(self) -> None:
        async with asyncio.timeout(60):
            before = 0
            while not self.written or self.written > before:
                before = self.written
                await asyncio.sleep(QUIET_S)


async def arrived(origin: Origin, part: bytes) -> None:
    """Returns when the upstream has been sent this."""
    async with asyncio.timeout(30):
        while not any(part in wire.buffer for wire in origin.wires):
            await asyncio.sleep(0.01)


async def leave(stage: Stage, origin: Origin, name: str, script: Script, moment: str, how: str) -> None:
    wire, sent = await connect(stage.load.port), request(name)
    if moment == "in its head":
        await wire.write(sent[:60])
    elif moment == "in its body":
        await wire.write(sent[:-10])
        await arrived(origin, name.encode())  # sooner it is a call that nobody has seen
    else:
        await wire.write(sent)
    if moment == "in the stream":
        await wire.sees(EVENT)
    elif moment == "after the last byte":
        await read_answer(wire)
    elif moment == "taking nothing":
        wire.transport.pause_reading()
        assert isinstance(script, Flood)
        await script.stands_still()
    getattr(wire, how)()


SCRIPTS: dict[str, Callable[[], Script]] = {"after the last byte": lambda: short, "taking nothing": Flood}
MOMENTS = ("in its head", "in its body", "before the answer", "in the stream", "after the last byte", "taking nothing")


async def test_each_call_that_began_is_recorded_once(set_up: SetUp, tmp_path: Path, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"))
    stage.load.calls = 0
    names = {
        f"{moment}, {how}, {turn}": (moment, how) for moment in MOMENTS for how in ("close", "reset", "half_close") for turn in range(3)
    }
    scripts = {name: SCRIPTS.get(moment, lambda: stream)() for name, (moment, _) in names.items()}
    async with upstream(scripts) as origin:
        await stage.start(upstream=origin.port)
        await asyncio.gather(*(leave(stage, origin, name, scripts[name], *how) for name, how in names.items()))
        for name, (moment, _) in names.items():
            if moment != "in its head":
                note(stage, name, 200, whole=True)  # it came as far as to be recorded
        verdict = (await stage.judged()).check_records()
        found = await recorded(stage)
    ends = ", ".join(f"{end} {count}" for end, count in sorted(verdict.contents.ends.items()))
    tell("F25", f"clients that leave at {len(MOMENTS)} moments, by close, reset or half a close", verdict, f"ends: {ends}")
    assert set(found) == {name for name, (moment, _) in names.items() if moment != "in its head"}
    whole = {name for name, (moment, _) in names.items() if moment == "after the last byte"}
    assert {found[name]["end"] for name in whole} == {"complete"}
    assert {row["end"] for name, row in found.items() if name not in whole} == {"client_disconnected"}
