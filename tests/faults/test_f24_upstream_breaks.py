"""F24: an upstream that breaks an exchange at each of its places: what is recorded of it.

The bytes, one by one: tests/e2e/test_transparency_breaks.py.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.wire import Wire
from tests.faults.conftest import SetUp, Tell
from tests.faults.scripted import CHUNKED, EVENTS, JSON, Script, call, chunk, recorded, upstream

pytestmark = [pytest.mark.timeout(240), pytest.mark.full]

READ_TIMEOUT_S = 2
SHORT = {"CLEARPANE_READ_TIMEOUT_S": str(READ_TIMEOUT_S)}
WHOLE = JSON + b"Content-Length: 2\r\n\r\n{}"


def sends(*pieces: bytes, then: Callable[[Wire], None] = Wire.close, pause_s: float = 0.0) -> Script:
    async def script(wire: Wire) -> None:
        for piece in pieces:
            await wire.write(piece)
            await asyncio.sleep(pause_s)
        then(wire)

    return script


async def never_answers(wire: Wire) -> None:
    await wire.ended()


SCRIPTS: dict[str, tuple[Script, str, bytes]] = {  # what it does, how the record says it ended, the status that the client sees
    "reset before the head": (sends(then=Wire.reset), "upstream_error", b"502"),
    "reset in the head": (sends(JSON, then=Wire.reset), "upstream_error", b"502"),
    "reset behind the head": (sends(JSON + b"Content-Length: 9\r\n\r\n", then=Wire.reset), "upstream_error", b"200"),
    "cut in a chunk": (sends(EVENTS + CHUNKED + b"9\r\ndat"), "upstream_error", b"200"),
    "no last chunk": (sends(EVENTS + CHUNKED, chunk(b"data: 1\n\n")), "upstream_error", b"200"),
    "shorter than its length": (sends(JSON + b"Content-Length: 9\r\n\r\n{}"), "upstream_error", b"200"),
    "longer than its length": (sends(WHOLE + b"and more"), "complete", b"200"),
    "never answers": (never_answers, "timeout", b"504"),
    "a byte now and then": (sends(JSON + b"Content-Length: 5\r\n\r\n", *[b"1"] * 5, pause_s=0.2), "complete", b"200"),
    "hints without end": (sends(*[b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 500), "upstream_error", b"502"),
    "a head without end": (sends(JSON, *[b"X: a\r\n"] * 5000), "upstream_error", b"502"),
    "refuses": (sends(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}"), "complete", b"429"),
}


async def test_each_call_has_a_record_that_says_where_it_broke(set_up: SetUp, tmp_path: Path, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"), proxy=SHORT)
    stage.load.calls = 0
    async with upstream({name: script for name, (script, _, _) in SCRIPTS.items()}) as origin:
        await stage.start(upstream=origin.port)
        answers = dict(zip(SCRIPTS, await asyncio.gather(*(call(stage, name) for name in SCRIPTS)), strict=True))
        verdict = (await stage.judged()).check_records()
        found = await recorded(stage)
    ends = ", ".join(f"{end} {count}" for end, count in sorted(verdict.contents.ends.items()))
    tell("F24", f"an upstream that breaks the exchange in {len(SCRIPTS)} ways", verdict, f"ends: {ends}")
    assert {name: answer.first[9:12] for name, answer in answers.items()} == {name: status for name, (_, _, status) in SCRIPTS.items()}
    assert {name: row["end"] for name, row in found.items()} == {name: end for name, (_, end, _) in SCRIPTS.items()}
    broken = [name for name, (_, end, status) in SCRIPTS.items() if end != "complete" and status == b"200"]
    assert not any(answers[name].whole for name in broken)
    assert {row["cost_total"] for row in found.values()} == {None}
