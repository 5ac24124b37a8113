"""A relay that goes both ways once the upstream has switched to WebSocket; until then, and without a 101, an ordinary one.

Bytes pass as they come; that they are frames matters to the record alone. A side that ends is ended on the other side,
which may still finish what it has to say. The call is complete when a Close was said before the end.
"""

import asyncio
from typing import Protocol

from proxy.call import Call, Failure
from proxy.relay import Client, Owner, Relay
from proxy.upstream.answer import Head
from proxy.upstream.faults import Broken, UpstreamFault
from proxy.upstream.parser import Event, Piece
from proxy.websocket import Follower

# How long one side may go on when the other has ended: what is left to say is the answer to a Close.
HALF_CLOSED_S = 10.0
_SWITCHED = 101


class TwoWayClient(Client, Protocol):
    """The client's connection, as a tunnel needs it."""

    def switch(self, tunnel: "Tunnel") -> bytes: ...  # what had come already; the rest goes to Tunnel.from_client

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def end(self) -> None: ...  # what was written goes out; then the client sees that no more comes


class TwoWayOwner(Owner, Protocol):
    websocket_idle_s: float


class Tunnel(Relay):
    """Implements proxy.upstream.connection.Switched."""

    __slots__ = ("_asked", "_first_end", "_idle_s", "_said", "_switched", "_two_way")

    def __init__(self, call: Call, client: TwoWayClient, owner: TwoWayOwner, *, close: bool) -> None:
        super().__init__(call, client, owner, close=close)
        self._two_way = client
        self._idle_s = owner.websocket_idle_s
        self._switched = False
        self._asked, self._said = Follower(), Follower()  # the client's frames, the upstream's
        self._first_end: Failure | None = None  # the side that ended first, in case nobody said Close

    # From the upstream

    def on_events(self, events: list[Event]) -> None:
        super().on_events(events)
        if self.head is None or self.head.status != _SWITCHED:
            return
        if not self._switched:
            self._switch()
        for event in events:
            if isinstance(event, Piece):
                self._said.feed(event.raw)

    def _head(self, head: Head) -> bytes:
        if head.status != _SWITCHED:
            return super()._head(head)
        self.head, self.close = head, True
        self.call.answered(head.status, head.fields)
        self.call.switched()
        return b"".join((head.status_line, head.passing, self._added(), b"\r\n"))

    def _switch(self) -> None:
        if self.connection is None or self._client is None:
            return
        self._switched = True
        self.connection.switch(self, self._idle_s)
        early = self._two_way.switch(self)
        if early:
            self.from_client(early)

    def upstream_full(self) -> None:
        self._two_way.pause_reading()

    def upstream_taking(self) -> None:
        self._two_way.resume_reading()

    def upstream_ended(self) -> None:
        """May be told twice: a connection whose reading goes on after a pause sees its end again."""
        if self.over:
            return
        self._two_way.end()
        self._one_ended(Failure("upstream", Broken.reason, "the upstream ended the WebSocket without a Close"))

    def _end_of_answer(self) -> None:
        """The connection to the upstream is gone, in order."""
        if not self._switched:
            super()._end_of_answer()
            return
        self.connection = None
        self.upstream_ended()

    def on_fault(self, fault: UpstreamFault) -> None:
        if not self._switched:
            super().on_fault(fault)
        elif not self.over and self._closed and isinstance(fault, Broken):
            self.connection = None
            self._end_both()
        elif not self.over:
            if self._client is not None:
                self._client.break_off(reset=isinstance(fault, Broken))
            self._finish(fault.end, Failure(fault.source, fault.reason, str(fault)))

    # From the client

    def from_client(self, data: bytes) -> None:
        if self.connection is None:
            return
        self.connection.write(data)
        self.call.request.add(data)
        self._asked.feed(data)

    def client_ended(self) -> None:
        """No more comes from the client, which still reads. May be told twice."""
        if self.over:
            return
        both_go_on = self.connection is not None and self.connection.end()
        failure = Failure("client", "client_disconnected", "the client ended the WebSocket without a Close")
        if both_go_on:
            self._one_ended(failure)
        else:
            self._first_end = self._first_end or failure
            self._end_both()

    def client_lost(self, *, drain_s: float, stuck: bool) -> None:
        if not self._switched:
            super().client_lost(drain_s=drain_s, stuck=stuck)
            return
        self._client = None
        if self.over:
            return
        if self.connection is not None and not self._closed:
            self.connection.reset()
        self._first_end = self._first_end or Failure("client", "client_disconnected", "the client reset the connection of its WebSocket")
        self._end_both()

    # Ends

    @property
    def _closed(self) -> bool:
        return self._asked.closed or self._said.closed

    def _one_ended(self, failure: Failure) -> None:
        if self._first_end is None:
            self._first_end = failure
            self._wait()
        elif self._first_end.source != failure.source:
            self._end_both()

    def _wait(self) -> None:
        self._drain = asyncio.get_running_loop().call_later(HALF_CLOSED_S, self._waited)

    def _waited(self) -> None:
        if self._client is not None and self._client.unsent():  # write_timeout_s is for that
            self._wait()
        else:
            self._end_both()

    def _end_both(self) -> None:
        connection, failure = self.connection, self._first_end
        if connection is not None:
            connection.finish()
        if self._closed or failure is None:
            self._finish("complete")
        else:
            self._finish("client_disconnected" if failure.source == "client" else "upstream_error", failure)

    def _break_off(self) -> None:
        """Of a call that we end: without a Close nobody takes it for the end."""
        if not self._switched:
            super()._break_off()
        elif self._client is not None:
            self._client.break_off(reset=False)
