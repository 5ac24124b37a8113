"""The parts put together: which processes a command starts, with which sockets, and in which order they stop."""

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from clearpane.cli import checks
from clearpane.forms import split_host_port
from clearpane.runtime import admin, keys
from clearpane.runtime.children import Child, Role
from clearpane.runtime.handover import Handover
from clearpane.settings import Settings, SettingsError

Watch = Callable[[dict[str, Any]], None]

PROXY_ADMIN = "127.0.0.1:9464"
CONSUMER_ADMIN = "127.0.0.1:9465"
# Rungs of the stop ladder above a child's own: the child should leave by itself first.
_WORKER_EXTRA_S = 20.0
_SHIPPER_STOP_S = 20.0
_CONSUMER_STOP_S = 20.0
_BACKLOG = 4096


class Stack:
    """The processes of one command. Enter it: all are ready; leave it: stopped in order, nothing is lost.

    `url` is the proxy's, `intake` the consumer's. Raises OSError for an address that cannot be had,
    SettingsError for settings that do not go together, ChildFailed for a part that refuses to start.
    """

    def __init__(self, settings: Settings, *, proxy: bool, consumer: bool, watch: Watch | None = None) -> None:
        self.settings = _embedded(settings) if proxy and consumer else settings
        self._proxy, self._consumer, self._watch = proxy, consumer, watch
        self._stack = contextlib.AsyncExitStack()
        self.children: list[Child] = []
        self.url = ""
        self._metrics = ""
        problems = _problems(self.settings, proxy=proxy, consumer=consumer) + checks.problems(self.settings, consumer=consumer)
        if problems:
            raise SettingsError(problems)

    @property
    def lake(self) -> str | None:
        return self.settings.lake

    def ready(self) -> bool:
        """Every part but the workers, of which one is enough to serve calls."""
        workers = [child.ready.is_set() for child in self.children if child.role.module == "proxy.worker"]
        others = [child.ready.is_set() for child in self.children if child.role.module != "proxy.worker"]
        return bool(self.children) and all(others) and (any(workers) or not workers)

    async def serve(self, stop: asyncio.Event) -> None:
        """Until told to stop. Raises ChildFailed when a part can't be kept running."""
        watched = [asyncio.ensure_future(child.failed()) for child in self.children]
        stopping = asyncio.ensure_future(stop.wait())
        done, pending = await asyncio.wait([*watched, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        """All addresses are taken first, then all processes started at once; they stop in the order of the records' way."""
        self._metrics = self._stack.enter_context(admin.metrics_directory())
        await self._start_admin()
        intake = self._take_intake() if self._consumer and self.settings.intake is not None else None
        listener = self._take_port() if self._proxy else None
        groups: list[list[Role]] = []
        if self._consumer:
            sockets = {} if intake is None else {"intake": intake.fileno()}
            groups.append([self._role("consumer", "consumer.service", sockets, _CONSUMER_STOP_S, watch=self._watch is not None)])
        if self._proxy and not self.settings.spool_only:
            groups.append([self._role("shipper", "proxy.shipper", {}, _SHIPPER_STOP_S)])
        if listener is not None:
            groups.append(self._workers(listener))
        for roles in groups:
            self._start_children(roles)
        if listener is not None:
            # Ours is closed before the workers are stopped: a new connection is then refused, not left waiting.
            self._stack.callback(listener.close)
        for child in self.children:
            await child.until_ready()

    async def _start_admin(self) -> None:
        host, port = split_host_port(self.settings.admin or (PROXY_ADMIN if self._proxy else CONSUMER_ADMIN))
        port_of_metrics = admin.Admin(self._metrics, self.ready)
        await port_of_metrics.start(host, port)
        self._stack.push_async_callback(port_of_metrics.stop)

    def _take_intake(self) -> socket.socket:
        assert self.settings.intake is not None
        listener = self._listen(_address_of(self.settings.intake))
        host, port = listener.getsockname()[:2]
        if self._proxy:  # the port may have been chosen by the system
            self.settings = dataclasses.replace(self.settings, intake=f"http://{host}:{port}")
        return listener

    def _take_port(self) -> socket.socket:
        self.settings.data.mkdir(parents=True, exist_ok=True)
        listener = self._listen(self.settings.listen)
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return listener

    def _workers(self, listener: socket.socket) -> list[Role]:
        pepper = self.settings.key_pepper or keys.kept_secret(self.settings.data, "pepper")
        timeout_s = self.settings.grace_s + _WORKER_EXTRA_S
        return [
            self._role(f"worker {number}", "proxy.worker", {"listen": listener.fileno()}, timeout_s, pepper=pepper)
            for number in range(self.settings.workers)
        ]

    def _role(self, name: str, module: str, sockets: dict[str, int], stop_timeout_s: float, **switches: Any) -> Role:
        handover = Handover(settings=self.settings, sockets=sockets, switches=switches)
        environment = {admin.METRICS_DIRECTORY: self._metrics}
        return Role(name=name, module=module, handover=handover, environment=environment, stop_timeout_s=stop_timeout_s)

    def _start_children(self, roles: list[Role]) -> None:
        children = [Child(role, self._heard) for role in roles]
        self.children += children

        async def stop() -> None:
            await asyncio.gather(*(child.stop() for child in children))

        self._stack.push_async_callback(stop)

    def _heard(self, child: Child, event: dict[str, Any]) -> None:
        if event.get("event") == "call" and self._watch is not None:
            self._watch(event["row"])
        if event.get("event") == "gone" and child.pid is not None:
            admin.forget(self._metrics, child.pid)

    def _listen(self, address: str) -> socket.socket:
        host, port = split_host_port(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
        listener.set_inheritable(True)
        self._stack.callback(listener.close)
        return listener


def _embedded(settings: Settings) -> Settings:
    """`up`: what is not said is local. The intake gets a port of its own and a key that the data folder keeps."""
    return dataclasses.replace(
        settings,
        lake=settings.lake or str(settings.data / "lake"),
        intake=settings.intake or "http://127.0.0.1:0",
        intake_secret=settings.intake_secret or keys.kept_secret(settings.data, "intake-secret"),
    )


def _problems(settings: Settings, *, proxy: bool, consumer: bool) -> list[str]:
    problems: list[str] = []
    nowhere = settings.kafka is None and settings.intake is None
    if proxy and nowhere and not settings.spool_only:
        problems.append("no delivery: give --kafka HOST:PORT and/or --intake URL, or --spool-only to keep records in the spool")
    if consumer and nowhere:
        problems.append("nothing to consume: give --kafka HOST:PORT and/or --intake URL")
    if consumer and settings.lake is None:
        problems.append("no lake: give --lake DIR or --lake s3://bucket/prefix")
    if settings.intake is not None and settings.intake_secret is None and not _is_loopback(settings.intake):
        problems.append("intake_secret: needed when the intake is not on loopback; `openssl rand -hex 32` makes one, give it to both sides")
    return problems


def _address_of(url: str) -> str:
    return url.partition("://")[2]


def _is_loopback(url: str) -> bool:
    host = _address_of(url).rpartition(":")[0].strip("[]") or _address_of(url)
    return host == "localhost" or host == "::1" or host.startswith("127.")


def data_lake(settings: Settings) -> str | None:
    """The lake a reading command means when none is named: that of `up` in the same data folder."""
    if settings.lake is not None:
        return settings.lake
    embedded: Path = settings.data / "lake"
    return str(embedded) if embedded.is_dir() else None
