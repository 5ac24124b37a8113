"""What stands before a real object store, or an intake, and answers in its place, late, falsely, or not at all, as the test says."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tests.faults.signing import signed_again

BODY_BYTES_MAX = 256 << 20
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}


@dataclass(eq=False, kw_only=True)
class Fault:
    """Meets requests of `method` ("": of any) whose path has `/folder/` in it: `times` of them, or with a probability of `share`."""

    name: str
    method: str = "PUT"
    folder: str = "calls"
    share: float = 1.0
    times: int | None = None
    # What happens, in this order:
    hold: asyncio.Event | None = None  # the request waits for it
    delay_s: float = 0.0
    status: int | None = None  # answered in place of the store, which hears nothing
    strip: str | None = None  # this header is taken away (and the request signed anew)
    flip: bool = False  # one bit of the body
    skew_s: float | None = None  # the client's clock is so much behind (the request is signed anew)
    cut_request: bool = False  # half of the body reaches the store, then both connections break
    lie: int | None = None  # this status is answered in place of the store's, which did what it was asked
    drop: bool = False  # the answer is lost, after the deed
    cut_answer: bool = False  # half of the answer's body
    met: asyncio.Event = field(default_factory=asyncio.Event)
    path: str = ""  # of the last request that it met
    stored: asyncio.Queue[int] = field(default_factory=asyncio.Queue)  # what the store itself answered to each

    def meets(self, method: str, path: str) -> bool:
        return self.method in ("", method) and f"/{self.folder}/" in path and self.times != 0


class Front:
    """`target`: http://HOST:PORT. `secret`: of the store, for faults that change what is signed. `counts`: how often each fault was met."""

    def __init__(self, target: str, secret: str = "", seed: int = 0) -> None:
        self.faults: list[Fault] = []
        self.counts: Counter[str] = Counter()
        self.requests = 0
        self._target = target
        self._secret = secret
        self._dice = random.Random(seed)
        self._session: aiohttp.ClientSession
        self._runner: web.AppRunner

    async def start(self) -> None:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    def add(self, **how: Any) -> Fault:
        fault = Fault(**how)
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        for fault in self.faults:
            if fault.hold is not None:
                fault.hold.set()
        self.faults.clear()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests += 1
        fault = self._chosen(request.method, request.raw_path) or Fault(name="none")
        if fault.hold is not None:
            await fault.hold.wait()
        await asyncio.sleep(fault.delay_s)
        if fault.status is not None:
            return _refusal(fault.status)
        if fault.cut_request:
            await self._send_half(request, body)
            return _broken(request)
        try:
            return await self._passed_on(request, body, fault)
        except aiohttp.ClientError:
            return _broken(request)  # what stands behind is gone

    async def _passed_on(self, request: web.Request, body: bytes, fault: Fault) -> web.StreamResponse:
        async with self._forwarded(request, body, fault) as answer:
            content = await answer.read()
            fault.stored.put_nowait(answer.status)
            if fault.drop:
                return _broken(request)
            if fault.lie is not None:
                return _refusal(fault.lie)
            headers = CIMultiDict((k, v) for k, v in answer.headers.items() if k.lower() not in _HOP)
            if request.method == "HEAD":
                headers["Content-Length"] = answer.headers.get("Content-Length", "0")
                return web.Response(status=answer.status, headers=headers)
            if fault.cut_answer:
                return await _half(request, answer.status, headers, content)
            return web.Response(status=answer.status, headers=headers, body=content)

    def _chosen(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.meets(method, path) and self._dice.random() < fault.share:
                if fault.times is not None:
                    fault.times -= 1
                self.counts[fault.name] += 1
                fault.path = path
                fault.met.set()
                return fault
        return None

    def _forwarded(self, request: web.Request, body: bytes, fault: Fault) -> Any:
        headers = CIMultiDict(request.headers)
        if fault.strip is not None:
            headers.popall(fault.strip, None)
        if fault.skew_s is not None:
            headers["x-amz-date"] = f"{datetime.now(UTC) - timedelta(seconds=fault.skew_s):%Y%m%dT%H%M%SZ}"
        if fault.strip is not None or fault.skew_s is not None:
            plain = {name.lower(): value for name, value in headers.items()}
            headers["Authorization"] = signed_again(request.method, request.raw_path, plain, self._secret)
        if fault.flip:
            body = body[:-1] + bytes([body[-1] ^ 1])
        url = URL(self._target + request.raw_path, encoded=True)
        skipped = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
        return self._session.request(
            request.method, url, headers=headers, data=body or None, skip_auto_headers=skipped, allow_redirects=False
        )

    async def _send_half(self, request: web.Request, body: bytes) -> None:
        target = urlsplit(self._target)
        _, writer = await asyncio.open_connection(target.hostname, target.port)
        writer.write(_head(request.method, request.raw_path, request.headers) + body[: len(body) // 2])
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def _head(method: str, target: str, headers: CIMultiDictProxy[str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _refusal(status: int) -> web.Response:
    text = f"<Error><Code>Told{status}</Code><Message>told to</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _broken(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _half(request: web.Request, status: int, headers: CIMultiDict[str], content: bytes) -> web.StreamResponse:
    headers["Content-Length"] = str(len(content))
    answer = web.StreamResponse(status=status, headers=headers)
    await answer.prepare(request)
    await answer.write(content[: len(content) // 2])
    assert request.transport is not None
    request.transport.close()
    return answer
