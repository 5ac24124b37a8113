"""Our transport tells a protocol what asyncio's own tells it, in the same order: each scene is played on both."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from proxy.loop import Loop
from proxy.transport import Transport
from tests.proxy.stage import LARGE, MAKES, Scene, Told, pair, play, read_all, reset


async def a_talk(told: Told, theirs: socket.socket) -> object:
    theirs.sendall(b"question")
    await told.until(lambda: told.data == b"question")
    told.transport.write(b"answer")
    told.transport.writelines([b", ", b"all of it"])
    told.transport.write(b"")
    told.transport.close()
    return await read_all(theirs), told.transport.is_closing()


async def a_large_write(told: Told, theirs: socket.socket) -> object:
    told.transport.write(b"x" * LARGE)
    waiting = told.transport.get_write_buffer_size()
    assert 0 < waiting < LARGE
    told.transport.write(b"y" * 1000)
    assert told.transport.get_write_buffer_size() == waiting + 1000
    told.transport.close()
    told.transport.close()
    return await read_all(theirs), told.transport.get_write_buffer_size()


async def told_when_all_is_out(told: Told, theirs: socket.socket) -> object:
    told.transport.write(b"x" * LARGE)
    told.transport.set_write_buffer_limits(high=0, low=0)
    reading = asyncio.create_task(read_all(theirs))
    await told.until(lambda: "taking" in told.events)
    assert told.transport.get_write_buffer_size() == 0
    told.transport.set_write_buffer_limits()
    told.transport.write(b"x" * LARGE)
    told.transport.write(b"x" * LARGE)
    told.transport.close()
    return await reading


async def told_before_all_is_out(told: Told, theirs: socket.socket) -> object:
    told.transport.set_write_buffer_limits(high=LARGE // 2, low=LARGE // 4)
    told.transport.write(b"x" * LARGE)
    while "taking" not in told.events:
        await asyncio.to_thread(theirs.recv, 64 << 10)
    assert told.transport.get_write_buffer_size() > LARGE // 8
    return None


async def limits(told: Told, theirs: socket.socket) -> object:
    seen: list[object] = []
    for high, low in ((None, None), (100, None), (None, 10), (100, 100)):
        told.transport.set_write_buffer_limits(high=high, low=low)
        seen.append((told.transport.get_write_buffer_size(), told.transport.get_write_buffer_limits()))
    for high, low in ((1, 2), (1, -1)):
        with pytest.raises(ValueError, match="high"):
            told.transport.set_write_buffer_limits(high=high, low=low)
    seen.append(told.transport.get_write_buffer_limits())
    return seen


async def an_end_of_both_ways(told: Told, theirs: socket.socket) -> object:
    theirs.sendall(b"all")
    theirs.shutdown(socket.SHUT_WR)
    await told.lost.wait()
    return await read_all(theirs)


async def an_end_of_one_way(told: Told, theirs: socket.socket) -> object:
    told.keep = True
    theirs.sendall(b"all")
    theirs.shutdown(socket.SHUT_WR)
    await told.until(lambda: "eof" in told.events)
    await asyncio.sleep(0.05)  # and not again and again
    told.transport.write(b"x" * LARGE)
    reading = asyncio.create_task(read_all(theirs))
    await told.until(lambda: "taking" in told.events)
    told.transport.close()
    return await reading


async def our_end_first(told: Told, theirs: socket.socket) -> object:
    told.transport.write(b"x" * LARGE)
    assert told.transport.can_write_eof()
    told.transport.write_eof()
    told.transport.write_eof()
    with pytest.raises(RuntimeError):
        told.transport.write(b"more")
    count = await read_all(theirs)
    theirs.sendall(b"still")
    await told.until(lambda: told.data == b"still")
    return count


async def our_end_at_once(told: Told, theirs: socket.socket) -> object:
    told.transport.write_eof()
    count = await read_all(theirs)
    theirs.close()
    await told.lost.wait()
    return count


async def an_end_behind_a_close(told: Told, theirs: socket.socket) -> object:
    told.transport.close()
    await told.lost.wait()
    told.transport.write_eof()
    return await read_all(theirs)


async def nothing_goes_out_behind_an_abort(told: Told, theirs: socket.socket) -> object:
    told.transport.abort()
    told.transport.write(b"x")
    return await read_all(theirs)


async def nothing_is_read_while_paused(told: Told, theirs: socket.socket) -> object:
    seen = [told.transport.is_reading()]
    told.transport.pause_reading()
    told.transport.pause_reading()
    seen.append(told.transport.is_reading())
    theirs.sendall(b"waits")
    await asyncio.sleep(0.05)
    assert told.data == b""
    told.transport.write(b"x" * LARGE)  # it is watched for writing, and still not read
    await asyncio.sleep(0.05)
    assert told.data == b""
    told.transport.resume_reading()
    told.transport.resume_reading()
    seen.append(told.transport.is_reading())
    await told.until(lambda: told.data == b"waits")
    told.transport.close()
    told.transport.resume_reading()
    seen.append(told.transport.is_reading())
    return seen, await read_all(theirs)


async def a_reset_while_reading(told: Told, theirs: socket.socket) -> object:
    reset(theirs)
    await told.lost.wait()
    told.transport.write(b"nobody is there")
    told.transport.close()
    told.transport.abort()
    return told.transport.is_closing()


async def a_reset_while_writing(told: Told, theirs: socket.socket) -> object:
    told.transport.pause_reading()
    told.transport.write(b"x" * LARGE)
    reset(theirs)
    await told.lost.wait()
    return told.transport.get_write_buffer_size()


async def a_write_into_a_reset(told: Told, theirs: socket.socket) -> object:
    told.transport.pause_reading()
    await asyncio.sleep(0)
    reset(theirs)
    told.transport.write(b"x")
    told.transport.write(b"x")
    waiting = told.transport.get_write_buffer_size()
    await told.lost.wait()
    return waiting


async def a_close_that_nobody_reads(told: Told, theirs: socket.socket) -> object:
    told.transport.write(b"x" * LARGE)
    told.transport.close()
    await asyncio.sleep(0.05)
    assert not told.lost.is_set()
    assert told.transport.get_write_buffer_size() > 0
    told.transport.abort()
    return told.transport.get_write_buffer_size()


async def data_behind_a_close(told: Told, theirs: socket.socket) -> object:
    theirs.sendall(b"too late")
    told.transport.close()
    await told.lost.wait()
    return None


def a_protocol_that_fails_at(event: str) -> Scene:
    async def scene(told: Told, theirs: socket.socket) -> object:
        told.fails_at = event
        theirs.sendall(b"x")
        theirs.shutdown(socket.SHUT_WR)
        await told.lost.wait()
        await asyncio.sleep(0.01)
        return None

    scene.__name__ = f"a_protocol_that_fails_at_{event}"
    return scene


async def a_protocol_that_is_cancelled(told: Told, theirs: socket.socket) -> object:
    """The connection ends, and the loop does not."""
    told.failure = asyncio.CancelledError
    return await a_protocol_that_fails_at("data")(told, theirs)


def a_protocol_that_fails_when(event: str) -> Scene:
    """What was written goes out all the same."""

    async def scene(told: Told, theirs: socket.socket) -> object:
        told.fails_at = event
        told.transport.write(b"x" * LARGE)
        reading = asyncio.create_task(read_all(theirs))
        await told.until(lambda: "taking" in told.events)
        told.transport.close()
        return await reading

    scene.__name__ = f"a_protocol_that_fails_when_{event}"
    return scene


SCENES: list[Scene] = [
    a_talk, a_large_write, told_when_all_is_out, told_before_all_is_out, limits, an_end_of_both_ways, an_end_of_one_way, our_end_first,
    our_end_at_once, an_end_behind_a_close, nothing_goes_out_behind_an_abort, nothing_is_read_while_paused, a_reset_while_reading,
    a_reset_while_writing, a_write_into_a_reset, a_close_that_nobody_reads, data_behind_a_close,
    *(a_protocol_that_fails_at(event) for event in ("data", "eof", "lost")), a_protocol_that_is_cancelled,
    *(a_protocol_that_fails_when(event) for event in ("full", "taking")),
]  # fmt: skip


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_scene_is_the_same_on_both(scene: Scene) -> None:
    theirs, ours = (play(make, scene) for make in MAKES.values())
    assert ours == theirs
    assert ours[0][0] == "made"
    assert str(ours[0][-1]).startswith("lost")


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_who_is_at_the_ends(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scene(told: Told, theirs: socket.socket) -> object:
        found = told.transport.get_extra_info
        assert found("peername") == theirs.getsockname()
        assert found("sockname") == theirs.getpeername()
        assert found("socket").fileno() >= 0
        assert found("sslcontext") is None
        assert found("unheard of", "this") == "this"
        assert told.transport.get_protocol() is told
        return None

    play(make, scene)


def test_small_writes_go_out_at_once() -> None:
    """asyncio leaves a socket alone that Python accepted: such a one does not say that it is TCP."""

    async def scene(told: Told, theirs: socket.socket) -> object:
        return told.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert play(Loop, scene)[2] == 1


def test_a_peer_that_is_gone_has_no_name() -> None:
    async def scene(told: Told, theirs: socket.socket) -> object:
        reset(theirs)
        await told.lost.wait()
        return told.transport.get_extra_info("peername", "gone"), told.transport.get_extra_info("sockname", "gone")

    assert play(Loop, scene)[2] == ("gone", "gone")


def test_one_that_cannot_be_watched_is_lost() -> None:
    """A kernel has a bound for what it watches; a descriptor that is none stands for it here."""

    async def run() -> list[Any]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        ours, theirs = pair()
        theirs.close()
        told = Told()
        transport = Transport(loop, loop.sockets, ours, told)
        ours.close()
        transport.start()
        await told.lost.wait()
        return told.events

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(run()) == ["made", "lost: OSError"]


def test_what_asyncio_has_and_ours_has_not() -> None:
    names = {name for name in dir(asyncio.Transport) if not name.startswith("_")}
    assert names - set(dir(Transport)) == {"set_protocol"}


def test_one_that_ends_another_in_the_same_turn() -> None:
    """Both are ready at once; the first to be told ends the other, which then hears of its end and of nothing else."""

    async def run() -> list[list[Any]]:
        loop = asyncio.get_running_loop()
        ends = [pair() for _ in range(2)]
        tolds = [(await loop.connect_accepted_socket(Told, ours))[1] for ours, _ in ends]
        for told, other in zip(tolds, reversed(tolds), strict=True):
            told.ends = other
        for _, theirs in ends:
            theirs.sendall(b"x")
        await asyncio.sleep(0.05)
        for told in tolds:
            told.transport.abort()
            await told.lost.wait()
        for _, theirs in ends:
            theirs.close()
        return sorted(told.events for told in tolds)

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(run()) == [["made", "data", "lost: NoneType"], ["made", "lost: NoneType"]]
