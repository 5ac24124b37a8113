"""What no event tells of a client's connection: it is idle, it takes nothing of its answer, it is gone while nobody reads it."""

import asyncio
from collections.abc import Collection, Mapping

from proxy.call import Failure
from proxy.client import ClientConnection
from proxy.limits import Limits
from proxy.relay import Relay
from proxy.tally import Tally
from proxy.uptake import is_gone_unread

SWEEP_EVERY_S = 1.0
# A client that leaves is to be gone at the upstream within half a second.
GONE_EVERY_S = 0.2


class Sweep:
    """Looks at the clients' connections now and then; closes, ends and aborts."""

    def __init__(
        self, limits: Limits, connections: Collection[ClientConnection], calls: Mapping[Relay, ClientConnection], tally: Tally
    ) -> None:
        self._limits, self._connections, self._calls, self._tally = limits, connections, calls, tally
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._sweep_forever(), name="client sweep"),
            asyncio.create_task(self._look_for_the_gone(), name="gone clients"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def too_many(self) -> bool:
        return len(self._connections) > self._limits.connections_max

    async def _sweep_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self._tally.tell(len(self._connections))
            for connection in list(self._connections):
                self._sweep(connection, loop.time())

    async def _look_for_the_gone(self) -> None:
        while True:
            await asyncio.sleep(GONE_EVERY_S)
            for connection in list(self._calls.values()):
                if is_gone_unread(connection.transport):
                    connection.abort()

    def _sweep(self, connection: ClientConnection, now_s: float) -> None:
        limits, relay = self._limits, connection.relay
        idle_s = now_s - connection.idle_since_s
        if connection.uptake.untaken_s(connection.transport, now_s) > limits.write_timeout_s:
            if relay is not None:
                text = f"the client took no byte of its answer for {limits.write_timeout_s:g} s (write_timeout_s)"
                relay.give_up("client_disconnected", Failure("client", "write_timeout", text))
            connection.abort()
        elif relay is not None or connection.stuck:  # a call, or requests that wait until earlier answers are taken
            return
        elif connection.begun and idle_s > limits.head_timeout_s:
            connection.refuse(
                408, "request_timeout", f"the head of the request took longer than {limits.head_timeout_s:g} s (head_timeout_s)"
            )
        elif idle_s > limits.keepalive_timeout_s or (idle_s > SWEEP_EVERY_S and self.too_many):
            connection.close_idle()
