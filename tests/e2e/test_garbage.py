"""What a call leaves behind is freed at once: looking for garbage makes every open stream wait."""

import gc

import pytest

from tests.e2e.conftest import Proxy
from tests.e2e.wire import OK, Answer, Origin, connect, read_answer

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\n"
WHOLE = HEAD + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
STREAM = Answer(
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"9\r\ndata: a\n\n\r\n",
        b"9\r\ndata: b\n\n\r\n0\r\n\r\n",
    ]
)
CALLS = 100


@pytest.mark.parametrize("request_bytes", [WHOLE, CHUNKED], ids=["whole", "chunked"])
@pytest.mark.parametrize("answer", [OK, STREAM], ids=["json", "stream"])
async def test_a_call_leaves_no_cycle(request_bytes: bytes, answer: Answer, through: Proxy, origin: Origin) -> None:
    origin.answer = lambda request: answer
    wire = await connect(through.port)
    for _ in range(3):
        await wire.write(request_bytes)
        await read_answer(wire)
    gc.collect()
    gc.disable()
    try:
        for _ in range(CALLS):
            await wire.write(request_bytes)
            await read_answer(wire)
        found = gc.collect()
    finally:
        gc.enable()
        wire.close()
    assert found < CALLS
