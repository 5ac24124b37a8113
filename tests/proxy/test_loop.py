"""Which connections of the worker's loop have our transport."""

import asyncio
import socket

from proxy.loop import Loop
from proxy.transport import Transport


def test_only_what_is_connected_and_not_tls_is_ours() -> None:
    async def run() -> list[bool]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        named, _ = await loop.create_connection(asyncio.Protocol, *address)
        connected = socket.create_connection(address)
        connected.setblocking(False)
        given, _ = await loop.create_connection(asyncio.Protocol, sock=connected)
        found = [isinstance(transport, Transport) for transport in (named, given)]
        for transport in (named, given):
            transport.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)
        return found

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(run()) == [False, True]
