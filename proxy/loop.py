"""The worker's event loop: asyncio's, on a selector and TCP transports of our own."""

import asyncio
from collections.abc import Callable
from typing import Any

from proxy.selector import Selector
from proxy.transport import Transport


class Loop(asyncio.SelectorEventLoop):
    """Connected sockets without TLS get our transport; all else is asyncio's."""

    def __init__(self) -> None:
        self.sockets = Selector()
        super().__init__(self.sockets)

    async def create_connection(self, protocol_factory: Callable[[], Any], *where: Any, **how: Any) -> tuple[Any, Any]:
        if how.get("sock") is None or how.get("ssl"):
            return await super().create_connection(protocol_factory, *where, **how)
        return self._attach(protocol_factory, how["sock"])

    async def connect_accepted_socket(self, protocol_factory: Callable[[], Any], sock: Any, **how: Any) -> tuple[Any, Any]:
        if how.get("ssl"):
            return await super().connect_accepted_socket(protocol_factory, sock, **how)
        return self._attach(protocol_factory, sock)

    def _attach(self, protocol_factory: Callable[[], Any], sock: Any) -> tuple[Any, Any]:
        protocol = protocol_factory()
        transport = Transport(self, self.sockets, sock, protocol)
        transport.start()
        return transport, protocol
