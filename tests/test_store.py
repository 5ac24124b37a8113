"""The object store, on a folder and on a real S3 server; the errors of S3 that no healthy server gives, by a double."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from obstore import exceptions

from clearpane import store as stores
from clearpane.store import AlreadyExists, Entry, NotFound, Store, StoreDenied, StoreUnavailable

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "lake") if request.param == "folder" else request.getfixturevalue("s3_lake"))


async def test_objects_come_back(store: Store) -> None:
    key, data = "calls/dt=2026-11-21/hour=02/k-a%2db-0-3-00000000000000000007.jsonl.gz", os.urandom(100_000)
    await store.create(key, data)
    assert await store.get(key) == data
    assert await store.get_range(key, 10, 20) == data[10:30]
    assert await store.get_range(key, 99_990, 4096) == data[-10:]
    assert await store.size(key) == len(data)
    assert await store.list("calls/dt=2026-11-21/hour=02/k-a%2db-0-3-") == [Entry(key, len(data))]
    await store.put(key, b"other")
    assert await store.get(key) == b"other"
    await store.delete(key)
    await store.delete(key)
    assert await store.size(key) is None
    for request in (store.get(key), store.get_range(key, 0, 1)):
        with pytest.raises(NotFound):
            await request


async def test_more_than_one_part_is_still_one_conditional_put(store: Store) -> None:
    data = os.urandom(6 << 20)
    await store.create("big", data)
    # A server that hangs up on a body which it does not want leaves the writer in doubt.
    with pytest.raises((AlreadyExists, StoreUnavailable)):
        await store.create("big", bytes(6 << 20))
    assert await store.get("big") == data


async def test_listing_is_sorted_whole_and_by_prefix(store: Store) -> None:
    keys = [
        f"calls/dt=2026-11-21/hour={hour:02}/{log}-{start:020}" for hour in (1, 2) for log in ("h-a", "k-b", "k-bc") for start in range(4)
    ]
    for key in reversed(keys):
        await store.put(key, b"x")
    assert [entry.key for entry in await store.list("calls/")] == sorted(keys)
    assert [entry.key for entry in await store.list("calls/dt=2026-11-21/hour=02/k-b-")] == [k for k in keys if "02/k-b-" in k]
    assert [entry.key for entry in await store.list("calls/", after=keys[5])] == sorted(keys)[6:]
    assert await store.list("nothing/") == []


async def test_of_all_writers_of_a_key_one_wins(store: Store) -> None:
    async def write(key: str, writer: int) -> int | None:
        while True:
            try:
                await store.create(key, b"%d" % writer)
            except AlreadyExists:
                return None
            except StoreUnavailable:
                continue  # in doubt: again
            return writer

    for number in range(50):
        key = f"race/{number}"
        winners = [w for w in await asyncio.gather(*(write(key, writer) for writer in range(20))) if w is not None]
        assert len(winners) == 1
        assert await store.get(key) == b"%d" % winners[0]


async def test_a_writer_that_is_killed_leaves_whole_objects_or_none(tmp_path: Path) -> None:
    lake, whole = tmp_path / "lake", bytes(2 << 20)
    program = (
        "import asyncio, itertools, sys\n"
        "from clearpane.store import Store\n"
        "async def main():\n"
        "    store = Store.open(sys.argv[1])\n"
        "    for number in itertools.count():\n"
        "        await store.create(f'calls/{sys.argv[2]}-{number}', bytes(2 << 20))\n"
        "        if number == 0: print('going', flush=True)\n"
        "asyncio.run(main())\n"
    )
    for life in range(12):
        process = subprocess.Popen([sys.executable, "-c", program, str(lake), str(life)], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        await asyncio.sleep(0.02 + life * 0.003)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    entries = await Store.open(str(lake)).list("calls/")
    assert len(entries) >= 12
    assert {entry.size for entry in entries} == {len(whole)}


class Server:
    """An S3 server that says or does one thing."""

    def __init__(self) -> None:
        self.act: Callable[[web.Request], web.StreamResponse] = lambda request: web.Response()
        self.requests: list[tuple[str, dict[str, str]]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.requests.append((request.method, {name.lower(): value for name, value in request.headers.items()}))
        return self.act(request)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    found = Server()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    yield found
    await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (304, AlreadyExists),
        (400, StoreUnavailable),
        (401, StoreDenied),
        (403, StoreDenied),
        (404, StoreDenied),
        (409, StoreUnavailable),
        (412, AlreadyExists),
        (429, StoreUnavailable),
        (500, StoreUnavailable),
        (503, StoreUnavailable),
    ],
)
async def test_what_a_refused_create_means(server: Server, status: int, meaning: type[Exception]) -> None:
    server.act = lambda request: web.Response(
        status=status, text="<Error><Code>409 status code: 409</Code></Error>" if status == 500 else ""
    )
    with pytest.raises(meaning):
        await Store.open("s3://bucket/prefix").create("key", b"data")
    assert len(server.requests) == 1  # our retries are our own
    method, headers = server.requests[0]
    assert (method, headers["if-none-match"]) == ("PUT", "*")
    assert "x-amz-checksum-sha256" in headers


async def test_a_lost_answer_is_in_doubt(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.act = drop
    with pytest.raises(StoreUnavailable):
        await Store.open("s3://bucket").create("key", b"data")
    assert len(server.requests) == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(StoreUnavailable):
        await Store.open("s3://bucket").get("key")


async def test_after_a_burst_few_connections_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers nobody until all have asked, each over a connection of its own; what is idle then is let go."""
    burst = 4 * stores.IDLE_CONNECTIONS_MAX
    connections: set[asyncio.StreamWriter] = set()
    all_ask = asyncio.Barrier(burst)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await all_ask.wait()
                head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: x\r\nLast-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\n\r\n"
                writer.write(head + b"y")
        except (asyncio.IncompleteReadError, ConnectionError):
            connections.discard(writer)
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for name, value in {"ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        store = Store.open("s3://bucket/lake")
        assert await asyncio.gather(*(store.get(f"key-{number}") for number in range(burst))) == [b"y"] * burst
        async with asyncio.timeout(10):  # the bound on what is idle, not the time that it may be, brings them down
            while len(connections) > stores.IDLE_CONNECTIONS_MAX:
                await asyncio.sleep(0.01)
        for writer in connections:
            writer.close()


async def test_a_slow_store_is_in_doubt(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "REQUEST_TIMEOUT_S", 0.3)

    async def never(request: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    monkeypatch.setattr(server, "handle", never)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", never)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://{}:{}".format(*runner.addresses[0]))
    with pytest.raises(StoreUnavailable):
        await Store.open("s3://bucket").create("key", b"data")
    await runner.cleanup()


@pytest.mark.parametrize("text", ["Permission denied (os error 13)", "Read-only file system (os error 30)"])
def test_a_folder_that_may_not_be_written(text: str) -> None:
    """By a double: root, as whom tests may run, is never refused."""
    error = exceptions.GenericError(f"Generic LocalFileSystem error: Unable to create dir /lake: {text}")
    assert stores._meaning(error, writing=True) is StoreDenied


def test_a_lake_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreDenied, match="file"):
        Store.open(str(tmp_path / "file" / "lake"))


@pytest.mark.s3
async def test_a_bucket_that_is_not_there(s3_lake: str) -> None:
    store = Store.open(f"s3://no-such-bucket-{uuid.uuid4().hex}/x")
    with pytest.raises(StoreDenied):
        await store.create("key", b"")
