"""The consumer as a whole: what it refuses to start with, what it reports, how it stops."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from clearpane.contract.records import COLUMNS
from clearpane.settings import Settings
from clearpane.store import StoreDenied
from consumer.service import NothingToDo, run
from consumer.sources.intake import UnsafeAddress

ROOT = Path(__file__).parents[2]
SPOOL = "0199a1b2c3d47e5f8091a2b3c4d5e6f7"
Make = Callable[..., dict[str, Any]]


async def never() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({}, NothingToDo, "lake"),
        ({"lake": "LAKE"}, NothingToDo, "kafka"),
        ({"lake": "LAKE", "intake": "https://127.0.0.1:1"}, NothingToDo, "TLS"),
        ({"lake": "LAKE", "intake": "http://0.0.0.0:1"}, UnsafeAddress, "intake_secret"),
        ({"lake": "/dev/null/lake", "intake": "http://127.0.0.1:1"}, StoreDenied, "folder"),
    ],
)
async def test_it_says_what_is_missing(tmp_path: Path, changes: dict[str, str], error: type[Exception], word: str) -> None:
    changes = {name: str(tmp_path) if value == "LAKE" else value for name, value in changes.items()}
    with pytest.raises(error, match=word):
        await run(Settings(**changes), never())


async def test_ready_then_calls_then_a_clean_stop(tmp_path: Path, envelope: Make) -> None:
    sock, stop = socket.create_server(("127.0.0.1", 0)), asyncio.Event()
    sock.setblocking(False)
    events: list[dict[str, Any]] = []
    seen = asyncio.Event()

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        seen.set()

    port = sock.getsockname()[1]
    running = asyncio.create_task(run(Settings(lake=str(tmp_path)), stop.wait(), report, watch=True, sock=sock))
    await seen.wait()
    assert events == [{"event": "ready"}]
    sent = envelope()
    url = f"http://127.0.0.1:{port}/v1/records/{SPOOL}/0"
    headers = {"clearpane-schema": "call.v1"}
    async with aiohttp.ClientSession() as session, session.post(url, data=orjson.dumps(sent) + b"\n", headers=headers) as answer:
        assert (answer.status, await answer.json()) == (200, {"end": 1})
    assert [event["event"] for event in events] == ["ready", "call"]
    row = orjson.loads(orjson.dumps(events[1]["row"]))
    assert row["request_id"] == sent["request_id"]
    assert set(row) >= set(COLUMNS)
    stop.set()
    await asyncio.wait_for(running, 5)


async def test_an_address_in_use_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="address"):
        await run(Settings(lake=str(tmp_path), intake=f"http://127.0.0.1:{taken.getsockname()[1]}"), never())


@pytest.mark.parametrize(("variable", "code", "word"), [("CLEARPANE_NOTHING", 2, b"CLEARPANE_NOTHING"), ("CLEARPANE_TOPIC", 1, b"no lake")])
def test_the_program_says_why_it_cannot_run(tmp_path: Path, variable: str, code: int, word: bytes) -> None:
    environ = {"PYTHONPATH": str(ROOT), variable: "x"}
    done = subprocess.run([sys.executable, "-m", "consumer"], cwd=tmp_path, env=environ, capture_output=True, timeout=50)
    assert done.returncode == code
    assert word in done.stderr + done.stdout
