"""The whole system as real processes, a load of mixed calls, and the oracle that looks at what is in the lake."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PORTS = range(10_000, 32_000)
READY_S = 60.0
STOP_S = 60.0

MIX = (
    ("/v1/chat/completions", {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}),
    ("/v1/chat/completions", {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "one two"}]}),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "one two three four"}),
    ("/v1/responses", {"model": "gpt-4.1", "input": "one two"}),
    ("/anthropic/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "one"}]}),
    (
        "/anthropic/v1/messages",
        {"model": "claude-sonnet-4-5", "max_tokens": 50, "stream": True, "messages": [{"role": "user", "content": "one"}]},
    ),
)


def free_port() -> int:
    """Below those that the system gives to outgoing connections: it stays free until it is used."""
    while True:
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Process:
    """`python -m ...`; ready when it says so; its standard error goes to a file."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.log = folder / f"{name}.log"
        self._arguments = arguments
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=self.environment(),
            )

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", *arguments]

    @staticmethod
    def environment() -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    async def ready(self) -> "Process":
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_S):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line.startswith(b"ready"), self.log.read_text()[-3000:]
        return self

    def children(self, module: str) -> list[int]:
        """Process ids of the children that run this module."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    command = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if parent == self.process.pid and module.encode() in command:
                    found.append(int(entry.name))
        return found

    def kill_child(self, module: str) -> bool:
        """SIGKILL to the first of them; False if there is none just now."""
        for pid in self.children(module)[:1]:
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"{self._arguments[:3]} did not stop\n{self.log.read_text()[-3000:]}") from None
        assert self.process.stdout is not None
        self.process.stdout.close()


@dataclass
class Outcome:
    """What a client saw: the status, whether the answer came whole, how long it took, when it began."""

    status: int | None
    whole: bool
    duration_s: float
    began_s: float


@dataclass
class Load:
    """Keeps `connections` busy until `calls` are made or `stop` is called. Call N says `Clearpane-Request-Id: call-N`."""

    port: int
    calls: int
    connections: int = 16
    pause_s: float = 0.0  # of each connection between two calls
    calls_per_connection: int = 1 << 30  # then it is closed, and the next one may come to another worker
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    stopped: bool = False
    _next: int = 0
    _statuses: dict[int, int | None] = field(default_factory=dict)  # of the calls in flight

    def request(self, number: int) -> tuple[str, dict[str, Any]]:
        """Path and body of call N."""
        return MIX[number % len(MIX)]

    async def run(self) -> None:
        await asyncio.gather(*(self._connection() for _ in range(self.connections)))

    async def _connection(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        made = 0
        while not self.stopped and self._next < self.calls:
            number, self._next = self._next, self._next + 1
            began = time.monotonic()
            whole = False
            self._statuses[number] = None
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
                await self._call(number, *streams)
                whole = True
            except (OSError, EOFError, asyncio.IncompleteReadError):
                pass
            if not whole and streams is not None:
                streams[1].transport.abort()
                streams = None
                await asyncio.sleep(0.02)
            made += 1
            if streams is not None and made % self.calls_per_connection == 0:
                streams[1].close()
                streams = None
            self.outcomes[f"call-{number}"] = Outcome(self._statuses.pop(number), whole, time.monotonic() - began, began)
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
        if streams is not None:
            streams[1].close()

    async def _call(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path, body = self.request(number)
        data = json.dumps(body).encode()
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-load-0123456789abcdef\r\n"
            b"x-api-key: sk-ant-load-0123456789abcdef\r\nanthropic-version: 2023-06-01\r\nClearpane-Request-Id: call-%d\r\n"
            b"Helicone-User-Id: user-%d\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), number, number % 7, len(data), data)
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        self._statuses[number] = int(head[9:12])
        if b"transfer-encoding: chunked" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        else:
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))

    def p99_s(self, since: float = 0.0, until: float = float("inf")) -> float:
        durations = sorted(o.duration_s for o in self.outcomes.values() if since <= o.began_s < until)
        return durations[int(len(durations) * 0.99)] if durations else 0.0


async def clearpane(*arguments: str, codes: tuple[int, ...] = (0,)) -> bytes:
    """The command's standard output."""
    process = await asyncio.create_subprocess_exec(
        *Process.command("clearpane.cli", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=Process.environment(),
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode in codes, (out[-2000:], err[-2000:])
    return out


async def rows(lake: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await clearpane("calls", "--lake", lake, "--json")).splitlines()]


async def settled(lake: str, expected: int, timeout_s: float) -> list[dict[str, Any]]:
    """The rows when there are as many as expected, or those there are when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = await rows(lake)
        if len(found) >= expected or time.monotonic() > deadline:
            return found
        await asyncio.sleep(1.0)


def judge(load: Load, found: list[dict[str, Any]]) -> Counter[str]:
    """The oracle: every call of whose answer a client saw as much as the head is recorded; nothing is recorded twice."""
    ids = Counter(row["client_request_id"] for row in found)
    assert not [name for name, count in ids.items() if count > 1], "doubled"
    assert len({row["request_id"] for row in found}) == len(found)
    by_id = {row["client_request_id"]: row for row in found}
    whole = [name for name, outcome in load.outcomes.items() if outcome.whole]
    lost = [name for name in whole if name not in by_id]
    assert not lost, f"{len(lost)} lost of {len(whole)}: {lost[:5]}"
    cut = [name for name, outcome in load.outcomes.items() if not outcome.whole and outcome.status is not None]
    vanished = [name for name in cut if name not in by_id]
    assert not vanished, f"{len(vanished)} of {len(cut)} calls that were cut off left no trace: {vanished[:5]}"
    return Counter(row["end"] for row in found)
