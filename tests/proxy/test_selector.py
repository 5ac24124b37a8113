"""The event loop's selector: what asyncio expects of one, and turns that stay short."""

import asyncio
import contextlib
import selectors
import socket
from collections.abc import Callable, Iterator
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import pytest

from proxy.selector import READY_MAX, Selector

PAIRS = 5 * READY_MAX // 2


@pytest.fixture
def selector() -> Iterator[Selector]:
    with contextlib.closing(Selector()) as found:
        yield found


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_what_is_ready_is_told_to_who_waits_for_it(selector: Selector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    key = selector.register(ours, EVENT_READ, "reader")
    assert selector.select(0) == []
    theirs.send(b"x")
    assert selector.select(1) == [(key, EVENT_READ)]
    both = selector.modify(ours, EVENT_READ | EVENT_WRITE, "both")
    assert selector.select(1) == [(both, EVENT_READ | EVENT_WRITE)]
    writer = selector.modify(ours, EVENT_WRITE, "writer")
    assert selector.select(1) == [(writer, EVENT_WRITE)]


@pytest.mark.parametrize("events", [EVENT_READ, EVENT_WRITE, EVENT_READ | EVENT_WRITE])
def test_a_hang_up_is_told_to_everybody(events: int, selector: Selector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    selector.register(ours, events)
    theirs.close()
    assert [found for _, found in selector.select(1)] == [events]


def test_keys_are_found_by_file_and_by_descriptor(selector: Selector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    key = selector.register(ours, EVENT_READ, "data")
    assert selector.get_key(ours) == selector.get_key(ours.fileno()) == key
    assert selector.get_map().get(ours) == selector.get_map()[ours.fileno()] == key
    assert selector.get_map().get(theirs) is None
    assert list(selector.get_map()) == [ours.fileno()]
    assert selector.unregister(ours) == key
    assert len(selector.get_map()) == 0


@pytest.mark.parametrize("make", [Selector, selectors.DefaultSelector], ids=["ours", "the library's"])
@pytest.mark.parametrize("by", ["file", "descriptor"])
def test_a_file_that_was_closed_first_is_found_and_can_be_taken_out(
    by: str, make: Callable[[], selectors.BaseSelector], pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    number = ours.fileno()
    with contextlib.closing(make()) as selector:
        key = selector.register(ours, EVENT_READ)
        theirs.send(b"x")
        ours.close()
        known: Any = ours if by == "file" else number
        assert selector.get_key(known) == selector.get_map()[known] == key
        assert selector.unregister(known).fd == number
        assert selector.select(0) == []
        with pytest.raises(ValueError, match=r"-1|not open"):
            selector.unregister(ours)


def test_mistakes_are_told_as_the_library_tells_them(selector: Selector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    selector.register(ours, EVENT_READ)
    with pytest.raises(KeyError):
        selector.register(ours, EVENT_READ)
    with pytest.raises(KeyError):
        selector.modify(theirs, EVENT_READ)
    with pytest.raises(KeyError):
        selector.unregister(theirs)
    with pytest.raises(KeyError):
        selector.get_key(theirs)
    theirs.close()
    with pytest.raises(ValueError, match="not open"):
        selector.register(theirs, EVENT_READ)


def test_a_turn_is_short_and_everybody_has_a_turn(selector: Selector) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(PAIRS):
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            selector.register(ours, EVENT_READ)
            theirs.send(b"x")  # and nobody reads it: each stays ready
        turns = [[key.fd for key, _ in selector.select(0)] for _ in range(3)]
    assert all(len(turn) <= READY_MAX for turn in turns)
    assert len({descriptor for turn in turns for descriptor in turn}) == PAIRS


def test_a_loop_runs_on_it() -> None:
    async def talk() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(5))
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return answer

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Selector())) as runner:
        assert runner.run(talk()) == b"hello"


def test_it_has_what_the_librarys_own_has(selector: Selector) -> None:
    own = selectors.DefaultSelector()
    with contextlib.closing(own):
        assert not {name for name in dir(own) if not name.startswith("_") and name != "fileno"} - set(dir(selector))
