"""The fake provider as an HTTP server."""

from types import TracebackType
from typing import Self

import orjson
from aiohttp import web

from clearpane.cli.fake import dialects
from clearpane.cli.fake.exchange import Exchange
from clearpane.cli.fake.ledger import Ledger
from clearpane.cli.fake.pace import Pace
from clearpane.cli.fake.refusal import Refusal

_BODY_BYTES_MAX = 64 << 20


class FakeProvider:
    """`async with FakeProvider() as provider:` serves at `provider.url` until the block ends."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, pace: Pace | None = None) -> None:
        self.ledger = Ledger()
        self._pace = pace or Pace()
        self._host, self._port = host, port
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_get("/_ledger", self._show_ledger)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name}", self._models)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
        except ConnectionError:
            return web.Response()  # nobody is there to read it
        exchange = Exchange(request, body, self.ledger, self._pace)
        try:
            answer = dialects.respond(request.method, request.path, request.headers, body)
        except Refusal as refusal:
            return exchange.refuse(refusal)
        return await (exchange.stream(answer) if answer.frames else exchange.answer(answer))

    async def _models(self, request: web.Request) -> web.StreamResponse:
        exchange = Exchange(request, b"", self.ledger, self._pace)
        try:
            body = dialects.models(exchange.dialect, request.headers, request.match_info.get("name"))
        except Refusal as refusal:
            return exchange.refuse(refusal)
        return exchange.json(200, body)

    async def _show_ledger(self, request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps([entry.json() for entry in self.ledger.entries]), content_type="application/json")
