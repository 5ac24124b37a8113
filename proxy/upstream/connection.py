"""One connection to an upstream: an asyncio protocol around the parser. It serves one call at a time."""

import asyncio
import select
from typing import Protocol, cast

from proxy.upstream.faults import Broken, Malformed, UpstreamFault
from proxy.upstream.parser import Event, Parser

# Above this many unsent bytes the upload waits; the same as asyncio's own default for sockets.
WRITE_BUFFER_BYTES_MAX = 64 << 10


class Sink(Protocol):
    """Who receives an answer. After `on_fault`, or after the event None, nothing more comes."""

    def on_events(self, events: list[Event]) -> None: ...

    def on_fault(self, fault: UpstreamFault) -> None: ...


class Home(Protocol):
    """Where a connection goes when its call is over."""

    def put(self, connection: "Connection") -> None: ...

    def gone(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """`last_activity_s` is the loop's clock at the last byte in or out; the pool's sweep reads it."""

    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self.last_activity_s = loop.time()
        self.paused = False
        self.served = 0
        self._home = home
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._sink: Sink | None = None
        self._parser: Parser | None = None
        self._request_sent = False
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
        self._sink, self._parser, self._request_sent = sink, parser, False
        self.served += 1
        self.last_activity_s = self._loop.time()

    def write(self, data: bytes) -> None:
        """A part of the request. Nothing happens when the connection is gone: the sink has been told."""
        if self._transport is not None and self._sink is not None:
            self.last_activity_s = self._loop.time()
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
            self.last_activity_s = self._loop.time()
            if not self.closed and self._transport is not None:
                self._transport.resume_reading()

    def fail(self, fault: UpstreamFault) -> None:
        """Ends the call in flight with `fault`, and the connection."""
        sink, self._sink = self._sink, None
        self.close()
        if sink is not None:
            sink.on_fault(fault)

    def close(self) -> None:
        self._sink = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's transports inherit from nothing
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)

    def data_received(self, data: bytes) -> None:
        self.last_activity_s = self._loop.time()
        sink, parser = self._sink, self._parser
        if sink is None or parser is None:  # bytes that no call asked for
            self.close()
            return
        try:
            events = parser.feed(data)
        except Malformed as fault:
            self.fail(fault)
            return
        if parser.complete:
            self._over(parser)
        sink.on_events(events)

    def _over(self, parser: Parser) -> None:
        self._sink = None
        if parser.reusable and self._request_sent and not self.closed:
            self.resume()
            self._home.put(self)
        else:
            self.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self.last_activity_s = self._loop.time()
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        self._home.gone(self)
        sink, self._sink = self._sink, None
        if sink is None or self._parser is None:
            return
        if exc is not None:
            sink.on_fault(Broken("the upstream reset the connection before its answer was complete"))
            return
        try:
            self._parser.eof()
        except Broken as fault:
            sink.on_fault(fault)
        else:
            sink.on_events([None])
