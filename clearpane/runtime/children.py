"""The parent's side: start child processes, start them again when they die, stop them in order.

A child that dies is started again at once if it had become ready, else after a pause that doubles up to a bound.
Stopping is a ladder: SIGTERM, wait, SIGKILL; the caller decides in which order children are stopped.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from clearpane.runtime.child import REFUSED
from clearpane.runtime.handover import Handover

log = logging.getLogger(__name__)

_PAUSE_LEAST_S, _PAUSE_MOST_S = 0.2, 10.0
_LINE_BYTES_MAX = 1 << 20
# Time between SIGKILL and the kernel's word that the process is gone.
_KILL_WAIT_S = 5.0
# How long a child may take to say that it is ready before it is waited for no longer.
READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What kind of process a child is."""

    name: str
    module: str
    handover: Handover
    environment: dict[str, str]
    stop_timeout_s: float


class Child:
    """One place in the family: a process now, its successor when it dies."""

    def __init__(self, role: Role, listener: Callable[["Child", dict[str, Any]], None] | None = None) -> None:
        self.role = role
        self.pid: int | None = None
        self.restarts = 0
        self.ready = asyncio.Event()
        self._listener = listener
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._life = asyncio.create_task(self._live(), name=f"child {role.name}")

    async def until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Raises TimeoutError, or ChildFailed when the child cannot be started at all."""
        ready = asyncio.ensure_future(self.ready.wait())
        done, _ = await asyncio.wait({ready, self._life}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._life in done:
            await self._life
        if not self.ready.is_set():
            raise TimeoutError(f"{self.role.name} was not ready within {timeout_s:g} s")

    async def failed(self) -> None:
        """Returns only by raising: ChildFailed when the child refuses to be started again."""
        await asyncio.shield(self._life)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after the role's timeout. Returns when the process is gone."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(self.role.stop_timeout_s):
                    await process.wait()
            except TimeoutError:
                log.warning("%s did not stop within %g s: killed; its records are in the spool", self.role.name, self.role.stop_timeout_s)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        _, pending = await asyncio.wait({self._life}, timeout=_KILL_WAIT_S)
        for task in pending:
            task.cancel()

    async def _live(self) -> None:
        pause_s = _PAUSE_LEAST_S
        while not self._stopping:
            code = await self._one_life()
            was_ready = self.ready.is_set()
            self.ready.clear()
            if self._listener is not None:
                self._listener(self, {"event": "gone", "pid": self.pid})
            self.pid = None
            if self._stopping:
                return
            if code == REFUSED and not was_ready:
                raise ChildFailed(self.role.name)
            self.restarts += 1
            pause_s = _PAUSE_LEAST_S if was_ready else min(pause_s * 2, _PAUSE_MOST_S)
            log.error("%s ended with code %s and is started again in %.1f s", self.role.name, code, pause_s)
            await asyncio.sleep(pause_s)

    async def _one_life(self) -> int | None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # never import from the folder the user happens to stand in
            "-m",
            self.role.module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES_MAX,
            pass_fds=tuple(self.role.handover.sockets.values()),
            env={**os.environ, **self.role.environment},
            start_new_session=True,  # Ctrl-C reaches the parent alone; it stops its children in order
        )
        self._process, self.pid = process, process.pid
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(self.role.handover.to_line())
            await process.stdin.drain()
        await self._listen(process.stdout)
        return await process.wait()

    async def _listen(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if event.get("event") == "ready":
                self.ready.set()
            if self._listener is not None:
                self._listener(self, event)


class ChildFailed(Exception):
    """A child refused to start; it has said why on standard error."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} could not start; its last line says why")
