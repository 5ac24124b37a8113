"""One connection to an upstream: an asyncio protocol around the parser. It serves one call at a time."""

import asyncio
import contextlib
import select
from time import monotonic
from typing import Protocol, cast

from proxy.transport import READ, reset_on_close
from proxy.upstream.faults import Broken, Defect, Malformed, UpstreamFault
from proxy.upstream.parser import Event, Parser

# Above this many unsent bytes the upload waits; the same as asyncio's own default for sockets.
WRITE_BUFFER_BYTES_MAX = 64 << 10
# An answer that is not over with so many reads is bulk: what others wait for goes first.
BULK_READS = 2
# What is left to say to a WebSocket's upstream when the call is over.
FINISH_S = 10.0


class Sink(Protocol):
    """Who receives an answer. After `on_fault`, or after the event None, nothing more comes."""

    def on_events(self, events: list[Event]) -> None: ...

    def on_fault(self, fault: UpstreamFault) -> None: ...


class Switched(Protocol):
    """Who has both ways of a connection that speaks another protocol now. Its answer's pieces still come to the sink."""

    def upstream_full(self) -> None: ...

    def upstream_taking(self) -> None: ...

    def upstream_ended(self) -> None: ...  # nothing more comes from there; it may still read


class Home(Protocol):
    """Where a connection goes when its call is over."""

    def put(self, connection: "Connection") -> None: ...

    def gone(self, connection: "Connection") -> None: ...


class Bulk(Protocol):
    """The event loop's: a socket that others overtake, or no longer."""

    def __call__(self, descriptor: int, on: bool) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """`last_activity_s` is the monotonic clock at the last byte in or out; the pool's sweep reads it."""

    __slots__ = (
        "_bulk",
        "_descriptor",
        "_home",
        "_is_bulk",
        "_loop",
        "_parser",
        "_poll",
        "_reads",
        "_request_sent",
        "_sink",
        "_switched",
        "_transport",
        "_writable",
        "last_activity_s",
        "paused",
        "served",
        "silence_s_max",
    )

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop, bulk: Bulk | None = None) -> None:
        self.last_activity_s = monotonic()
        self.paused = False
        self.served = 0
        self._home = home
        self._loop = loop
        self._bulk = bulk
        self._is_bulk = False
        self._descriptor = -1
        self._reads = 0  # of the answer that is under way
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._sink: Sink | None = None
        self._parser: Parser | None = None
        self._request_sent = False
        self._switched: Switched | None = None
        self.silence_s_max: float | None = None  # where it is another than the pool's
        self._writable = asyncio.Event()
        self._writable.set()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "busy" if self._sink is not None else "idle"
        return f"<Connection {state} served={self.served}>"

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    @property
    def stale(self) -> bool:
        """Idle, but the upstream has closed it or sent something: a request on it would be lost."""
        return self.closed or bool(self._poll.poll(0))

    # The call's side

    def begin(self, sink: Sink, parser: Parser) -> None:
        self._sink, self._parser, self._request_sent, self._reads = sink, parser, False, 0
        self.served += 1
        self.last_activity_s = monotonic()

    def write(self, data: bytes) -> None:
        """A part of the request. Nothing happens when the connection is gone: the sink has been told."""
        if self._transport is not None and self._sink is not None:
            self.last_activity_s = monotonic()
            self._transport.write(data)

    async def drain(self) -> None:
        """Waits while the upstream takes the request more slowly than the client sends it."""
        await self._writable.wait()

    def request_sent(self) -> None:
        self._request_sent = True

    def pause(self) -> None:
        if not self.paused and not self.closed and self._transport is not None:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self.last_activity_s = monotonic()
            if not self.closed and self._transport is not None:
                self._transport.resume_reading()

    def may_switch(self) -> None:
        """The request in flight asks for a WebSocket."""
        assert self._parser is not None
        self._parser.may_switch = True

    def switch(self, switched: Switched, silence_s_max: float) -> None:
        self._switched, self.silence_s_max = switched, silence_s_max

    def end(self) -> bool:
        """The client sends no more. False where only the whole connection can be ended (TLS): it is."""
        if self._transport is None or self._transport.is_closing():
            return False
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # it was reset meanwhile, which is told elsewhere
                self._transport.write_eof()
            return True
        self.finish()
        return False

    def finish(self) -> None:
        """Closes when all is written, or after FINISH_S."""
        self._sink = None
        self.paused, self.silence_s_max, self.last_activity_s = False, FINISH_S, monotonic()
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            reset_on_close(self._transport)
        self.close()

    def fail(self, fault: UpstreamFault) -> None:
        """Ends the call in flight with `fault`, and the connection."""
        sink, self._sink = self._sink, None
        self.close()
        if sink is not None:
            sink.on_fault(fault)

    def close(self) -> None:
        self._sink = None
        self._set_bulk(False)
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape only
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._poll.register(self._descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)

    def get_buffer(self, sizehint: int) -> memoryview:
        """TLS and uvloop read this way, without a buffer that is made and dropped for each read; our transport calls data_received."""
        return READ

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(READ[:nbytes]))

    def data_received(self, data: bytes) -> None:
        self.last_activity_s = monotonic()
        sink, parser = self._sink, self._parser
        if sink is None or parser is None:  # bytes that no call asked for
            self.close()
            return
        try:
            events = parser.feed(data)
        except Malformed as fault:
            self.fail(fault)
            return
        self._reads += 1
        if self._reads == BULK_READS and not parser.complete:
            self._set_bulk(True)
        sink.on_events(events)
        # Behind it: a client that has no room for the last bytes pauses this connection, and the next call reads on.
        if parser.complete:
            self._over(parser)

    def _set_bulk(self, on: bool) -> None:
        if self._bulk is not None and self._is_bulk != on:
            self._is_bulk = on
            self._bulk(self._descriptor, on)

    def _over(self, parser: Parser) -> None:
        self._sink = None
        self._set_bulk(False)
        # An upstream that answered a request without taking all of it hardly goes on to the next.
        if parser.reusable and self._request_sent and not self.closed and not self._unsent:
            self.resume()
            self._home.put(self)
        else:
            self.close()

    @property
    def _unsent(self) -> bool:
        """A part of the request still waits here."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def eof_received(self) -> bool:
        """True keeps the connection, for what a WebSocket's client still sends; TLS ends with both ways at once."""
        if self._switched is None:
            self._end_answer()
            if self._unsent:  # closing would wait until that is taken
                self.close()
            return False
        if self._sink is None or self._transport is None or not self._transport.can_write_eof():
            return False
        self._switched.upstream_ended()
        return not self.closed

    def pause_writing(self) -> None:
        self._writable.clear()
        if self._switched is not None:
            self._switched.upstream_full()

    def resume_writing(self) -> None:
        self.last_activity_s = monotonic()
        self._writable.set()
        if self._switched is not None:
            self._switched.upstream_taking()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        self._set_bulk(False)
        self._writable.set()
        self._home.gone(self)
        if exc is None:
            self._end_answer()
            return
        sink, self._sink = self._sink, None
        if sink is None:
            return
        if isinstance(exc, OSError):
            sink.on_fault(Broken("the upstream reset the connection before its answer was complete"))
        else:
            sink.on_fault(Defect(f"{type(exc).__name__} in the proxy; please report it with this id"))

    def _end_answer(self) -> None:
        """The upstream has ended its side: that is an end of the answer, or a break."""
        sink, self._sink = self._sink, None
        if sink is None or self._parser is None:
            return
        try:
            self._parser.eof()
        except Broken as fault:
            sink.on_fault(fault)
        else:
            sink.on_events([None])
