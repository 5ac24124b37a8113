"""The HTTP intake: takes batches of a spool's records, and answers 200 only when the lake has them."""

import asyncio
import ipaddress
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from aiohttp import web

from clearpane.contract.envelope import SCHEMA, SCHEMA_HEADER
from clearpane.contract.identifiers import Log, spool_born_at
from consumer import metrics
from consumer.lake.chain import Chain, Lake
from consumer.lake.messages import Candidate
from consumer.lake.pending import Pending
from consumer.lake.tail import ChainBroken
from consumer.sources import batch, signature
from consumer.sources.batch import BadBatch, TooLarge
from consumer.sources.signature import Unsigned

log = logging.getLogger(__name__)

SPOOLS_MAX = 1024  # chains kept in memory; idle ones go first
TURNS = 8  # writes under way or in doubt; each holds its records in memory
RETRY_AFTER_S = 2
STOP_S = 5.0
_PATH = r"/v1/records/{spool:[0-9a-f]{32}}"


class UnsafeAddress(Exception):
    """The intake would be open to everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    host: str
    port: int
    secret: str | None
    bytes_max: int  # of one POST, unpacked
    deadline_s: float  # of one POST; then 503, while the write goes on


@dataclass(slots=True)
class _Spool:
    """One spool's chain; the lock is held by a write until it is decided, even after its POST was given up."""

    name: str
    chain: Chain | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Intake:
    def __init__(self, lake: Lake, settings: IntakeSettings, sock: socket.socket | None = None) -> None:
        """`sock`: bound already. Raises UnsafeAddress."""
        self._lake = lake
        self._settings = settings
        self._sock = sock
        self._spools: OrderedDict[str, _Spool] = OrderedDict()
        self._turns = asyncio.Semaphore(TURNS)
        self._writes: set[asyncio.Task[int]] = set()
        self._runner: web.AppRunner | None = None
        host = sock.getsockname()[0] if sock is not None else settings.host
        if settings.secret is None and not _is_loopback(host):
            raise UnsafeAddress(
                f"the intake would take records from everybody who reaches {host}: set intake_secret "
                "(CLEARPANE_INTAKE_SECRET) here and on the proxies, or listen on 127.0.0.1"
            )

    async def start(self) -> None:
        app = web.Application(client_max_size=self._settings.bytes_max)
        app.router.add_post(_PATH + r"/{first:\d{1,18}}", self._post)
        app.router.add_get(_PATH, self._end)
        app.router.add_get("/healthz", self._health)
        # auto_decompress off: the signature is over the bytes as sent, and the bound is ours.
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=STOP_S)
        await self._runner.setup()
        if self._sock is not None:
            await web.SockSite(self._runner, self._sock).start()
        else:
            await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()

    async def stop(self) -> None:
        """Open POSTs have STOP_S; a write in doubt is left to the next writer, which finds it."""
        if self._runner is not None:
            await self._runner.cleanup()
        for write in self._writes:
            write.cancel()
        await asyncio.gather(*self._writes, return_exceptions=True)

    @property
    def address(self) -> tuple[str, int]:
        assert self._runner is not None
        host, port, *_ = self._runner.addresses[0]
        return host, port

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _post(self, request: web.Request) -> web.Response:
        answer = await self._answered(request, self._store)
        metrics.posts.labels(str(answer.status)).inc()
        return answer

    async def _end(self, request: web.Request) -> web.Response:
        return await self._answered(request, self._tell)

    async def _answered(self, request: web.Request, act: Callable[[web.Request, bytes], Awaitable[int]]) -> web.Response:
        """Every outcome has its status here, and nowhere else."""
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                return web.json_response({"end": await act(request, await self._body(request))})
        except Unsigned as error:
            return _refusal(401, str(error))
        except BadBatch as error:
            return _refusal(400, str(error))
        except (TooLarge, web.HTTPRequestEntityTooLarge) as error:
            return _refusal(413, str(error) if isinstance(error, TooLarge) else "the body is too large")
        except Gap as gap:
            return web.json_response({"error": str(gap), "end": gap.end}, status=409)
        except TimeoutError:
            return _refusal(503, "the lake does not answer in time; post it again")
        except ChainBroken as error:
            log.error("a request is refused, the lake needs a person: %s", error)  # noqa: TRY400  # the words say it all
            return _refusal(503, f"the lake needs a person: {error}")

    async def _body(self, request: web.Request) -> bytes:
        """The bytes as sent, by one who may send them. Raises Unsigned."""
        secret = self._settings.secret
        if secret is not None:
            signature.check_clock(request.headers, time.time())
        body = await request.read()
        if secret is not None:
            signature.check(secret, request.headers, request.path, body)
        return body

    async def _tell(self, request: web.Request, body: bytes) -> int:
        return await self._decided(request.match_info["spool"], self._located)

    async def _store(self, request: web.Request, body: bytes) -> int:
        name, first = request.match_info["spool"], int(request.match_info["first"])
        if request.headers.get(SCHEMA_HEADER) != SCHEMA:
            raise BadBatch(f"{SCHEMA_HEADER} is not {SCHEMA}")
        found = await asyncio.to_thread(_decoded, body, request.headers.get("Content-Encoding"), self._settings.bytes_max, name, first)
        metrics.messages_read.labels("intake").inc(len(found))
        return await self._decided(name, lambda spool: self._written(spool, first, found))

    async def _decided(self, name: str, act: Callable[[_Spool], Awaitable[int]]) -> int:
        """Waits for its turn as long as the POST lives; then runs to its end even if the POST is given up."""
        await self._turns.acquire()
        spool = self._spool(name)
        try:
            await spool.lock.acquire()
        except BaseException:
            self._turns.release()
            raise
        task = asyncio.create_task(self._turn(spool, act))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        task.add_done_callback(_observed)
        return await asyncio.shield(task)

    async def _turn(self, spool: _Spool, act: Callable[[_Spool], Awaitable[int]]) -> int:
        try:
            return await act(spool)
        except BaseException as error:
            if not isinstance(error, Gap):
                spool.chain = None  # what it knows may be half a step: the lake knows better
            raise
        finally:
            spool.lock.release()
            self._turns.release()

    async def _written(self, spool: _Spool, first: int, found: list[Candidate]) -> int:
        chain = await self._chain(spool)
        if first > chain.tail.end:
            await chain.refresh()
        if first > chain.tail.end:
            raise Gap(first, chain.tail.end)
        pending = Pending(end=chain.tail.end, covering=True)
        for candidate in found:
            pending.add(candidate.offset, candidate)
        await chain.append(pending)
        return chain.tail.end

    async def _located(self, spool: _Spool) -> int:
        """Looked up: a head that is behind would be told for ever, as nothing is written before it is believed."""
        chain = await self._chain(spool)
        await chain.refresh()
        return chain.tail.end

    async def _chain(self, spool: _Spool) -> Chain:
        if spool.chain is None:
            spool.chain = await Chain.open(self._lake, Log.of_spool(spool.name).name, since=_born(spool.name))
        return spool.chain

    def _spool(self, name: str) -> _Spool:
        spool = self._spools.setdefault(name, _Spool(name))
        self._spools.move_to_end(name)
        idle = [other for other, found in self._spools.items() if other != name and not found.lock.locked()]
        for other in idle[: max(0, len(self._spools) - SPOOLS_MAX)]:
            del self._spools[other]
        return spool


class Gap(Exception):
    """Records are missing before the first of a POST."""

    def __init__(self, first: int, end: int) -> None:
        super().__init__(f"the POST begins at {first}, but the lake holds this spool up to {end}: post from there")
        self.end = end


def _born(name: str) -> datetime:
    try:
        return spool_born_at(name)
    except ValueError as error:
        raise BadBatch("the path names no spool") from error


def _decoded(body: bytes, encoding: str | None, bytes_max: int, name: str, first: int) -> list[Candidate]:
    return batch.candidates(batch.unpack(body, encoding, bytes_max), name, first)


def _refusal(status: int, error: str) -> web.Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    return web.json_response({"error": error}, status=status, headers=headers)


def _observed(task: "asyncio.Task[int]") -> None:
    """Its POST may be gone: the outcome is taken here, so that nothing is reported as forgotten."""
    if not task.cancelled():
        task.exception()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
