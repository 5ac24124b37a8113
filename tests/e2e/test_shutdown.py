"""Stopping: streams in flight finish, new connections are refused, records reach the lake, nothing is left running."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.system import Process, clearpane, free_port, rows

STREAM = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "one two"}]}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in reversed(started):
        process.stop()


async def up(processes: list[Process], folder: Path, port: int, *arguments: str) -> Process:
    provider_port = free_port()
    provider = Process(folder, "provider", "clearpane.cli.fake", "--port", str(provider_port), "--pace", "1.5")
    processes.append(provider)
    await provider.ready()
    whole = Process(
        folder, "up", "clearpane.cli", "up", "--data", str(folder / "data"), "--listen", f"127.0.0.1:{port}",
        "--admin", f"127.0.0.1:{free_port()}", "--default-upstream", f"http://127.0.0.1:{provider_port}", "--flush-seconds", "0.2",
        *arguments,
    )  # fmt: skip
    processes.append(whole)
    await whole.ready()
    return whole


async def begin_stream(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream whose first piece has come."""
    data = json.dumps(STREAM).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer sk-0123456789abcdef\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
    )
    await asyncio.wait_for(reader.readuntil(b"data: "), 20)
    return reader, writer


async def test_a_stream_in_flight_finishes_and_is_recorded(tmp_path: Path, processes: list[Process]) -> None:
    port = free_port()
    whole = await up(processes, tmp_path, port, "--workers", "2")
    reader, writer = await begin_stream(port)
    whole.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    rest = await asyncio.wait_for(reader.read(-1), 30)
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    writer.close()
    assert await asyncio.to_thread(whole.process.wait, 30) == 0
    assert [row["end"] for row in await rows(str(tmp_path / "data/lake"))] == ["complete"]
    assert json.loads(await clearpane("verify", "--lake", str(tmp_path / "data/lake"), "--json"))["clean"]


async def test_a_stream_longer_than_the_grace_time_is_cut_and_says_so(
    tmp_path: Path, processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARPANE_GRACE_S", "0.2")
    port = free_port()
    whole = await up(processes, tmp_path, port)
    reader, writer = await begin_stream(port)
    began = time.monotonic()
    whole.process.send_signal(signal.SIGTERM)
    rest = await asyncio.wait_for(reader.read(-1), 30)
    assert not rest.endswith(b"0\r\n\r\n")  # broken, and seen to be broken
    assert time.monotonic() - began < 5
    writer.close()
    assert await asyncio.to_thread(whole.process.wait, 30) == 0
    assert [row["end"] for row in await rows(str(tmp_path / "data/lake"))] == ["shutdown"]


async def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path, processes: list[Process]) -> None:
    port = free_port()
    whole = await up(processes, tmp_path, port)
    children = [pid for module in ("proxy.worker", "proxy.shipper", "consumer.service") for pid in whole.children(module)]
    assert len(children) == 3
    whole.process.kill()
    async with asyncio.timeout(30):
        while any(
            Path(f"/proc/{pid}/stat").exists() and b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().split()[2:3] for pid in children
        ):
            await asyncio.sleep(0.1)


async def test_a_port_in_use_is_said_in_words(tmp_path: Path) -> None:
    port = free_port()
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    process = await asyncio.create_subprocess_exec(
        *Process.command("clearpane.cli", "up", "--listen", f"127.0.0.1:{port}", "--data", str(tmp_path), "--admin", "127.0.0.1:0"),
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, env=Process.environment(),
    )  # fmt: skip
    _, error = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in error.decode()
    server.close()
