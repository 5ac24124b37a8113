"""Scripted ends of one call, on raw sockets: the upstream does what the model's name in the request says, and the client as it likes."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.e2e.system import Outcome, rows
from tests.e2e.wire import Message, Origin, Wire, connect, read_answer, read_request
from tests.faults.stage import Stage

Script = Callable[[Wire], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"
JSON = HEAD % b"application/json"
EVENTS = HEAD % b"text/event-stream"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def upstream(scripts: dict[str, Script]) -> AsyncIterator[Origin]:
    async def serve(wire: Wire) -> None:
        request = await read_request(wire)
        await scripts[json.loads(request.payload)["model"]](wire)

    origin = Origin()
    origin.serve = serve
    server = await origin.start()
    try:
        yield origin
    finally:
        server.close()
        await origin.stop()


def request(name: str, path: bytes = b"/v1/chat/completions") -> bytes:
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "one two"}]}).encode()
    return (
        b"POST %b HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-scripted-0123456789abcdef\r\n"
        b"Clearpane-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b" % (path, name.encode(), len(body), body)
    )


async def call(stage: Stage, name: str) -> Message:
    """What the client saw in the end; for the oracle a call whose answer came whole."""
    wire = await connect(stage.load.port)
    await wire.write(request(name))
    answer = (await read_answer(wire))[-1]
    wire.close()
    note(stage, name, int(answer.first[9:12] or 0), whole=answer.whole)
    return answer


def note(stage: Stage, name: str, status: int | None, *, whole: bool) -> None:
    stage.load.outcomes[name] = Outcome(status, whole, 0.0, 0.0)


async def recorded(stage: Stage) -> dict[str, dict[str, Any]]:
    """The lake's rows by the client's id."""
    return {row["client_request_id"]: row for row in await rows(stage.lake)}
