import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest

from proxy import listening as listening_module
from proxy.listening import Listening


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    found = socket.create_server(("127.0.0.1", 0), backlog=512)
    found.setblocking(False)
    yield found
    found.close()


class Greeting(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"hello")
        transport.close()


async def greeted(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    answer = await reader.read()
    writer.close()
    return answer


async def test_many_at_once_are_all_taken(listener: socket.socket) -> None:
    listening = Listening(listener, Greeting, 512)
    listening.start()
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(greeted(listener.getsockname()) for _ in range(300)))
    assert answers == [b"hello"] * 300
    await listening.stop()


class Exhausted:
    """A listener without a file descriptor to give, twice."""

    def __init__(self, real: socket.socket) -> None:
        self._real, self.refusals = real, 2

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def accept(self) -> object:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return self._real.accept()


async def test_without_descriptors_it_waits_and_goes_on(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening_module, "_PAUSE_S", 0.01)
    exhausted = Exhausted(listener)
    listening = Listening(exhausted, Greeting, 16)  # type: ignore[arg-type]
    listening.start()
    async with asyncio.timeout(10):
        assert await greeted(listener.getsockname()) == b"hello"
    assert exhausted.refusals == 0
    await listening.stop()
