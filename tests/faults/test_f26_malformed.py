"""F26: answers that are no JSON, no events, or too much of either: to the client as they came, in the record null and never 0."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.wire import Wire
from tests.faults.conftest import SetUp, Tell
from tests.faults.scripted import CHUNKED, EVENTS, JSON, Script, call, chunk, recorded, upstream

pytestmark = [pytest.mark.timeout(240), pytest.mark.full]

USAGE = b'"usage":{"prompt_tokens":%b,"completion_tokens":5,"total_tokens":7}'
DEEP = 100_000
LINE_BYTES = 10 << 20


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


BODIES: dict[str, tuple[bytes, bytes]] = {  # content type's head, body
    "no JSON": (JSON, b"<html>busy</html>"),
    "cut JSON": (JSON, b'{"id":"x","usage":{"prompt_tok'),
    "two JSONs": (JSON, b"{}{}"),
    "NaN": (JSON, b"{" + USAGE % b"NaN" + b"}"),
    "1e400": (JSON, b"{" + USAGE % b"1e400" + b"}"),
    "a negative count": (JSON, b"{" + USAGE % b"-3" + b"}"),
    "a count in words": (JSON, b"{" + USAGE % b'"two"' + b"}"),
    "lone surrogate": (JSON, b'{"id":"\\ud800"}'),
    "no UTF-8": (JSON, b'{"id":"\xff\xfe"}'),
    "deep": (JSON, b"[" * DEEP + b"]" * DEEP),
    "empty": (JSON, b""),
    "events that are none": (EVENTS, event(b"{") + event(b"not JSON") + event(b"[DONE]")),
    "events by CR alone": (EVENTS, b'data: {"id":"x"\r\rdata: 3\r\r'),
    "a line of 10 MiB": (EVENTS, b"data: " + b"x" * LINE_BYTES + b"\n\n"),
    "no end": (EVENTS, b'data: {"choices":'),
}

UNREADABLE = {"no JSON", "cut JSON", "two JSONs", "NaN", "1e400", "no UTF-8", "deep", "events that are none", "events by CR alone"}


def sends(head: bytes, body: bytes) -> Script:
    """In pieces that cut characters and lines."""
    step = max(7, len(body) // 50)
    pieces = [chunk(body[at : at + step]) for at in range(0, len(body), step)]

    async def script(wire: Wire) -> None:
        await wire.write(head + CHUNKED, *pieces, b"0\r\n\r\n")

    return script


async def test_bytes_are_passed_on_and_no_number_is_made_up(set_up: SetUp, tmp_path: Path, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"))
    stage.load.calls = 0
    async with upstream({name: sends(*body) for name, body in BODIES.items()}) as origin:
        await stage.start(upstream=origin.port)
        answers = dict(zip(BODIES, await asyncio.gather(*(call(stage, name) for name in BODIES)), strict=True))
        verdict = (await stage.judged()).check()
        found = await recorded(stage)
    errors = sum(row["parse_error"] is not None for row in found.values())
    tell("F26", f"{len(BODIES)} malformed answers", verdict, f"{errors} records with a parse error")
    assert {name: answer.payload for name, answer in answers.items()} == {name: body for name, (_, body) in BODIES.items()}
    assert set(found) == set(BODIES)
    assert {name for name, row in found.items() if row["cost_total"] is not None} == set()
    assert {row["usage_source"] for row in found.values()} == {"unknown"}
    assert {name for name, row in found.items() if row["parse_error"] is not None} == UNREADABLE
