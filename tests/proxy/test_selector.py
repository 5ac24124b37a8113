"""The event loop's selector: what asyncio expects of one, and turns that stay short."""

import asyncio
import contextlib
import functools
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from select import EPOLLIN, EPOLLOUT
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import pytest

from proxy.selector import BULK_PARTS_MAX, BULK_READY_MIN, READY_MAX, Selector

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


@contextlib.contextmanager
def waiting(selector: Selector, count: int, *, bulk: bool) -> Iterator[list[int]]:
    """So many sockets with a byte to read, which nobody reads: they stay ready."""
    with contextlib.ExitStack() as stack:
        descriptors = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            selector.register(ours, EVENT_READ)
            selector.bulk(ours.fileno(), bulk)
            theirs.send(b"x")
            descriptors.append(ours.fileno())
        yield descriptors


def turn_of(selector: Selector) -> list[int]:
    return [key.fd for key, _ in selector.select(0)]


def test_a_turn_is_short_and_everybody_has_a_turn(selector: Selector) -> None:
    with waiting(selector, PAIRS, bulk=False) as descriptors:
        turns = [turn_of(selector) for _ in range(3)]
    assert all(len(turn) <= READY_MAX for turn in turns)
    assert {descriptor for turn in turns for descriptor in turn} == set(descriptors)


def test_others_overtake_bulk_and_everybody_has_a_turn(selector: Selector) -> None:
    with waiting(selector, 5 * BULK_READY_MIN, bulk=True) as bulk:
        seen = turn_of(selector)
        assert len(seen) == BULK_READY_MIN
        with waiting(selector, 2, bulk=False) as others:
            turn = turn_of(selector)
            assert set(turn[:2]) == set(others)
            assert len(turn) == 2 + BULK_READY_MIN
            seen += turn[2:]
            for _ in range(3):
                seen += turn_of(selector)[2:]
    assert sorted(seen) == sorted(bulk)


def test_bulk_does_not_starve_behind_others_without_end(selector: Selector) -> None:
    with waiting(selector, 2 * READY_MAX, bulk=True) as bulk, waiting(selector, 4 * READY_MAX, bulk=False) as others:
        turns = [turn_of(selector) for _ in range(10)]
    served = [sum(descriptor in kind for turn in turns for descriptor in turn) for kind in (set(bulk), set(others))]
    assert served[0] >= served[1] / 8
    assert {descriptor for turn in turns for descriptor in turn} == {*bulk, *others}


@pytest.mark.parametrize("on", [False, True])
def test_what_is_asked_of_a_socket_holds_in_either_lane(on: bool, selector: Selector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    selector.bulk(ours.fileno(), on)  # before it is registered, as while its reading is paused
    key = selector.register(ours, EVENT_READ)
    theirs.send(b"x")
    assert selector.select(1) == [(key, EVENT_READ)]
    selector.bulk(ours.fileno(), not on)
    assert selector.select(1) == [(key, EVENT_READ)]
    both = selector.modify(ours, EVENT_READ | EVENT_WRITE)
    selector.bulk(ours.fileno(), on)
    selector.bulk(ours.fileno(), on)
    assert selector.select(1) == [(both, EVENT_READ | EVENT_WRITE)]
    selector.unregister(ours)
    assert selector.select(0) == []
    selector.bulk(ours.fileno(), False)
    ours.close()
    selector.bulk(key.fd, False)


class Watched:
    """Reads nothing, so it stays ready."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.found: list[int] = []
        self.then = then

    def ready(self, found: int) -> None:
        self.found.append(found)
        self.then()


@pytest.mark.parametrize("on", [False, True])
def test_a_watcher_is_told_in_either_lane_and_asyncio_is_not(
    on: bool, selector: Selector, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    watched = Watched()
    selector.watch(ours.fileno(), watched, EPOLLIN)
    selector.bulk(ours.fileno(), on)
    assert selector.select(0) == []
    theirs.send(b"x")
    assert selector.select(1) == []
    assert set(watched.found) == {EPOLLIN}
    selector.bulk(ours.fileno(), not on)
    selector.watch(ours.fileno(), watched, EPOLLIN | EPOLLOUT)
    selector.select(1)
    assert set(watched.found) == {EPOLLIN, EPOLLIN | EPOLLOUT}
    before = len(watched.found)
    selector.watch(ours.fileno(), watched, 0)
    assert selector.select(0) == []
    selector.bulk(ours.fileno(), on)
    assert selector.select(0) == []
    assert len(watched.found) == before
    assert len(selector.get_map()) == 0


def test_a_watch_that_fails_leaves_nothing_behind(selector: Selector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    number = ours.fileno()
    ours.close()
    watched = Watched()
    with pytest.raises(OSError, match="Bad file descriptor"):
        selector.watch(number, watched, EPOLLIN)
    os.dup2(theirs.fileno(), number)  # the next file of this number
    try:
        key = selector.register(number, EVENT_WRITE)
        assert selector.select(1) == [(key, EVENT_WRITE)]
        selector.unregister(number)
    finally:
        os.close(number)
    assert watched.found == []


def test_asyncio_hears_of_its_sockets_as_watchers_left_them(selector: Selector) -> None:
    """A handle that a watcher has replaced is cancelled; told of it, asyncio would take out the new one."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(3)]
        for end in (end for pair in pairs for end in pair):
            stack.enter_context(end)
        watched, replaced, ended = (ours for ours, _ in pairs)
        for ours in (replaced, ended):
            selector.register(ours, EVENT_READ, "old")

        def change() -> None:
            selector.unregister(replaced)
            selector.register(replaced, EVENT_READ, "new")
            selector.unregister(ended)

        for _, theirs in reversed(pairs):  # the watcher's is the last to be polled
            theirs.send(b"x")
        selector.watch(watched.fileno(), Watched(change), EPOLLIN)
        assert [(key.fileobj, key.data) for key, _ in selector.select(1)] == [(replaced, "new")]


@contextlib.contextmanager
def watching(selector: Selector, count: int, then: Callable[[int], object]) -> Iterator[None]:
    """So many bulk sockets that are ready and stay so; `then` is told which one was served."""
    with contextlib.ExitStack() as stack:
        for number in range(count):
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            selector.watch(ours.fileno(), Watched(functools.partial(then, number)), EPOLLIN)
            selector.bulk(ours.fileno(), True)
            theirs.send(b"x")
        yield


def test_a_turn_of_watched_bulk_ends(selector: Selector) -> None:
    served: list[int] = []
    with watching(selector, 4 * BULK_READY_MIN * BULK_PARTS_MAX, served.append):
        assert selector.select(None) == []
        assert len(served) == BULK_READY_MIN * BULK_PARTS_MAX
        assert len(set(served)) == len(served)
        for _ in range(3):
            selector.select(None)
    assert len(set(served)) == len(served)


def test_what_becomes_ready_in_a_turn_overtakes_the_bulk_that_waits(selector: Selector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    order: list[str] = []
    selector.watch(ours.fileno(), Watched(lambda: (ours.recv(1), order.append("call"))), EPOLLIN)

    def served(_: int) -> None:
        order.append("chunk")
        if len(order) == 1:
            theirs.send(b"x")

    with watching(selector, READY_MAX, served):
        selector.select(None)
    assert order.index("call") == BULK_READY_MIN
    assert order.count("chunk") == BULK_PARTS_MAX * BULK_READY_MIN


def test_a_turn_with_many_others_is_not_prolonged(selector: Selector) -> None:
    told: list[str] = []
    with watching(selector, READY_MAX, lambda _: told.append("chunk")), contextlib.ExitStack() as stack:
        for _ in range(2 * BULK_READY_MIN):
            ours, theirs = socket.socketpair()
            stack.enter_context(ours)
            stack.enter_context(theirs)
            selector.watch(ours.fileno(), Watched(lambda: told.append("call")), EPOLLIN)
            theirs.send(b"x")
        selector.select(None)
    assert told == ["call"] * 2 * BULK_READY_MIN + ["chunk"] * 2 * BULK_READY_MIN


def test_asyncio_has_its_turn_when_something_is_ready_for_it(selector: Selector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    key = selector.register(ours, EVENT_READ)
    theirs.send(b"x")
    served: list[int] = []
    with watching(selector, READY_MAX, served.append):
        assert selector.select(None) == [(key, EVENT_READ)]
    assert len(served) == BULK_READY_MIN


def test_a_wait_ends_with_what_comes_in_bulk(selector: Selector, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    key = selector.register(ours, EVENT_READ)
    selector.bulk(ours.fileno(), True)
    timer = threading.Timer(0.05, theirs.send, [b"x"])
    timer.start()
    assert selector.select(None) == [(key, EVENT_READ)]
    timer.join()


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
