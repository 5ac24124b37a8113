"""A worker's spool, an intake on a real socket, and the shipper between them."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from backports import zstd

from clearpane.contract.identifiers import new_request_id
from clearpane.settings import Settings
from proxy.shipper import service
from proxy.spool import SpoolThread

SECRET = "0123456789abcdef-of-the-tests"


def facts(request_id: str | None = None, *, omitted: tuple[str, ...] = (), **response: Any) -> dict[str, Any]:
    """What a worker states of a call that went well."""
    side = dict.fromkeys(("body", "body_encoding", "content_encoding", "body_bytes", "body_sha256"))
    return {
        "schema": "call.v1",
        "event": "completed",
        "request_id": request_id or new_request_id(),
        "client_request_id": None,
        "hostname": "test",
        "version": "0.1.0",
        "recorded_at": "2026-11-21T10:00:01.000000Z",
        "trace": dict.fromkeys(("trace_id", "span_id", "parent_span_id", "x_request_id")),
        "caller": {
            **dict.fromkeys(("key_fingerprint", "user_id", "session_id", "session_path", "session_name", "prompt_id", "user_agent")),
            "properties": {},
            "tags": [],
        },
        "target": {"provider": "openai", "upstream": "openai", "operation": "chat", "url": "https://api.openai.com/v1/chat/completions"},
        "request": {**side, "method": "POST", "path": "/v1/chat/completions", "headers": {}, "truncated": False},
        "response": {
            **side,
            "status": 200,
            "headers": {},
            "truncated": False,
            "streamed": False,
            "end": "complete",
            "error": None,
            **response,
        },
        "timing": {
            "received_at": "2026-11-21T10:00:00.000000Z",
            **dict.fromkeys(("upstream_started_ms", "upstream_headers_ms", "first_byte_ms", "last_byte_ms", "proxy_ms", "duration_ms")),
            "chunks": None,
            **dict.fromkeys(("chunk_gap_p50_ms", "chunk_gap_p95_ms", "chunk_gap_max_ms")),
            "chunk_marks": [],
        },
        "policy": {
            **dict.fromkeys(("cache", "fallback_index", "rate_limit")),
            "retries": [],
            "sampled": False,
            "omitted": list(omitted),
            "dropped": [],
            "redactions": 0,
        },
    }


def admission(stated: dict[str, Any]) -> bytes:
    return orjson.dumps({**stated, "event": "started", "response": {**stated["response"], "status": None, "end": None}})


class Worker:
    """The writing side of a spool."""

    def __init__(self, data: Path, segment_bytes: int = 64 << 20, bytes_max: int = 1 << 30) -> None:
        self.spool = SpoolThread(data / "spool", bytes_max=bytes_max, segment_bytes=segment_bytes, queue_bytes_max=64 << 20)
        self.spool.start()
        self.ids: list[str] = []

    def call(
        self, request: bytes = b'{"model":"m"}', response: bytes = b'{"id":"r"}', *, started: bool = False, **response_facts: Any
    ) -> str:
        stated = facts(**response_facts)
        sequence = self.spool.admit(admission(stated))
        if started:
            self.spool.started(sequence, admission(stated))
        self.spool.completed(sequence, orjson.dumps(stated), request, response)
        self.ids.append(stated["request_id"])
        return str(stated["request_id"])

    def open_call(self, *, started: bool = False) -> tuple[int, dict[str, Any]]:
        stated = facts()
        sequence = self.spool.admit(admission(stated))
        if started:
            self.spool.started(sequence, admission(stated))
        self.ids.append(stated["request_id"])
        return sequence, stated

    async def written(self) -> None:
        """Returns when all frames are on disk."""
        async with asyncio.timeout(10):
            while self.spool.queue_bytes:
                await asyncio.sleep(0.01)

    def die(self) -> None:
        assert self.spool.stop(10)


@dataclass
class Intake:
    """Does what the contract says of an intake, and checks signatures by itself. `answer` may speak first."""

    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    posts: list[tuple[str, int, int]] = field(default_factory=list)
    nonces: set[str] = field(default_factory=set)
    answer: Callable[[web.Request, list[dict[str, Any]]], Awaitable[web.Response | None]] | None = None
    secret: str | None = SECRET
    url: str = ""

    async def post(self, request: web.Request) -> web.Response:
        body = await request.read()
        assert request.headers["Content-Encoding"] == "zstd"
        assert request.headers["clearpane-schema"] == "call.v1"
        if self.secret:
            self._check(request, body)
        lines = [orjson.loads(line) for line in zstd.decompress(body).splitlines()]
        spool_id, first = request.match_info["spool"], int(request.match_info["first"])
        self.posts.append((spool_id, first, len(lines)))
        if self.answer is not None and (answer := await self.answer(request, lines)) is not None:
            return answer
        return self.store(spool_id, first, lines)

    def store(self, spool_id: str, first: int, lines: list[dict[str, Any]]) -> web.Response:
        log = self.logs.setdefault(spool_id, [])
        if first > len(log):
            return web.json_response({"error": "gap", "end": len(log)}, status=409)
        log.extend(lines[len(log) - first :])
        return web.json_response({"end": len(log)})

    @property
    def records(self) -> list[dict[str, Any]]:
        return [record for log in self.logs.values() for record in log]

    def _check(self, request: web.Request, body: bytes) -> None:
        assert self.secret is not None
        nonce, timestamp = request.headers["clearpane-nonce"], request.headers["clearpane-timestamp"]
        assert len(bytes.fromhex(nonce)) == 16
        assert nonce not in self.nonces
        self.nonces.add(nonce)
        signed = f"{timestamp}.{nonce}.{request.path}.{hashlib.sha256(body).hexdigest()}"
        expected = hmac.digest(self.secret.encode(), signed.encode(), "sha256").hex()
        assert request.headers["clearpane-signature"] == expected


@pytest.fixture
async def intake() -> AsyncIterator[Intake]:
    found = Intake()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/records/{spool}/{first}", found.post)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


class Lab:
    """What the tests of this folder share; a fixture, since test modules here cannot import one another."""

    facts = staticmethod(facts)
    admission = staticmethod(admission)
    secret = SECRET

    def __init__(self, data: Path) -> None:
        self.data = data
        self.workers: list[Worker] = []

    def worker(self, **bounds: int) -> Worker:
        self.workers.append(Worker(self.data, **bounds))
        return self.workers[-1]

    def settings(self, **values: Any) -> Settings:
        return Settings(data=self.data, flush_seconds=0.02, kafka_probe_s=0.2, **values)

    def posting(self, intake: Intake, **values: Any) -> Settings:
        return self.settings(intake=intake.url, intake_secret=SECRET, **values)

    @asynccontextmanager
    async def shipping(self, settings: Settings) -> AsyncIterator[asyncio.Event]:
        """A shipper in this process, stopped in order at the end or when the event is set."""
        stop = asyncio.Event()

        async def stopped() -> None:
            await stop.wait()

        task = asyncio.create_task(service.run(settings, stopped()))
        try:
            yield stop
        finally:
            stop.set()
            async with asyncio.timeout(30):
                await task

    @staticmethod
    async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    found = Lab(tmp_path)
    yield found
    for worker in found.workers:
        worker.spool.stop(10)
