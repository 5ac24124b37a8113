"""The gateways whose loss is compared: each can be started, killed with SIGKILL, and asked which calls are in its bucket."""

import asyncio
import gzip
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

import aiohttp
import orjson

from bench.peers import install
from clearpane.store import Entry, Store
from tests.e2e.system import Load, Process, free_port
from tests.faults.growth import descendants, role_of
from tests.faults.stage import Stage

PEERS = Path(__file__).parent / "peers"
START_S = 240.0
KEY = "sk-load-0123456789abcdef"  # what the load says
READS_AT_ONCE = 16
_ID = re.compile(r"call-\d+\Z")


class Calls(Load):
    """Chat calls, every third a stream; the prompt of call N is `call-N`."""

    def request(self, number: int) -> tuple[str, dict[str, object]]:
        messages = [{"role": "user", "content": f"call-{number}"}]
        return "/v1/chat/completions", {"model": "gpt-4o-mini", "messages": messages, "stream": number % 3 == 0}


class Gateway(Protocol):
    name: str
    how: str  # what of its settings matters here
    load: Calls

    async def start(self) -> None: ...

    async def kill(self) -> None:
        """SIGKILL, and back again: returns when it takes calls."""

    def stop(self) -> None: ...

    async def recorded(self) -> Counter[str]:
        """Call -> how many records of it are in the bucket."""


class Bucket:
    """A gateway's objects, each read once; a call is told by its prompt."""

    def __init__(self, address: str) -> None:
        self._store = Store.open(address)
        self._read: set[str] = set()
        self.calls: Counter[str] = Counter()

    async def refresh(self, prefix: str) -> None:
        new = [entry for entry in await self._store.list(prefix) if entry.key not in self._read]
        gate = asyncio.Semaphore(READS_AT_ONCE)

        async def one(entry: Entry) -> None:
            async with gate:
                data = await self._store.get(entry.key)
            self._read.add(entry.key)
            for line in (gzip.decompress(data) if entry.key.endswith(".gz") else data).splitlines():
                self.calls.update(_prompts(orjson.loads(line)))

        await asyncio.gather(*(one(entry) for entry in new))


def _prompts(record: dict[str, object]) -> list[str]:
    """The call that a record is of: of Clearpane from the request's body, of LiteLLM from its messages."""
    request = record.get("request")
    body = request["body"] if isinstance(request, dict) else None  # an interrupted record may have none
    messages = orjson.loads(body)["messages"] if body is not None else record.get("messages")
    texts = [message.get("content") for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    return [text for text in texts if isinstance(text, str) and _ID.match(text)]


class Provider(Process):
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        super().__init__(folder, "provider", "clearpane.cli.fake", "--port", str(self.port), "--pace", "0")


class LiteLLM:
    """One worker process, started again whenever it was killed. Raises Unavailable."""

    def __init__(self, folder: Path, lake: str, endpoint: str, *, flush_s: int, one_file: bool) -> None:
        bucket, prefix = lake.removeprefix("s3://").split("/", 1)
        self.name = f"LiteLLM {install.version('litellm')}"
        self.how = f"flush every {flush_s} s, {'one object a flush' if one_file else 'one object a call'}"
        self._home = install.folder("litellm")
        self.load = Calls(free_port(), calls=10**9)
        self._folder, self._flush_s, self._bucket = folder, flush_s, Bucket(lake)
        self._provider = Provider(folder)
        fill = {"up": str(self._provider.port), "bucket": bucket, "prefix": prefix, "endpoint": endpoint, "one_file": str(one_file).lower()}
        text = (PEERS / "litellm-s3.yaml.in").read_text()
        for name, value in fill.items():
            text = text.replace(f"{{{name}}}", value)
        (folder / "litellm.yaml").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        await self._provider.ready()
        await self._run()

    async def _run(self) -> None:
        own = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "DISABLE_ADMIN_UI": "True",
            "LITELLM_MASTER_KEY": KEY,
        }
        own |= {"DEFAULT_S3_FLUSH_INTERVAL_SECONDS": str(self._flush_s)}
        inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}}
        with (self._folder / "litellm.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220  # it returns at once
                [
                    str(self._home / "bin" / "python"), "-c", "import litellm; litellm.run_server()", "--config",
                    str(self._folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(self.load.port), "--num_workers", "1",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, env=inherited | own, start_new_session=True,
            )  # fmt: skip
        await _serving(self.load.port)

    async def kill(self) -> None:
        self._end()
        await self._run()

    def _end(self) -> None:
        """Nothing where it never came to start."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        self._end()
        self._provider.stop()

    async def recorded(self) -> Counter[str]:
        await self._bucket.refresh("")
        return self._bucket.calls


class Clearpane:
    """Proxy and consumer without Kafka. `whole`: a kill takes every process of the proxy at once, not the worker alone."""

    def __init__(self, folder: Path, lake: str, endpoint: str, *, whole: bool = False) -> None:
        self.name = "Clearpane"
        self.how = "as it comes, no Kafka"
        self._stage = Stage(folder, lake, store={"AWS_ENDPOINT_URL_S3": endpoint})
        self._whole = whole
        self._bucket = Bucket(lake)
        self.load = Calls(self._stage.load.port, calls=10**9)

    async def start(self) -> None:
        self._stage.load.stopped = True  # ours takes its place
        await self._stage.start()
        await _serving(self.load.port)

    async def kill(self) -> None:
        proxy = self._stage.proxy
        if not self._whole:
            proxy.kill_child("proxy.worker")
            return await _serving(self.load.port)
        for pid in [pid for pid in descendants([proxy.process.pid]) if role_of(pid)]:
            os.kill(pid, signal.SIGKILL)
        proxy.process.wait()
        await self._stage.replace_proxy()
        return await _serving(self.load.port)

    def stop(self) -> None:
        self._stage.stop()

    async def recorded(self) -> Counter[str]:
        await self._bucket.refresh("calls/")
        return self._bucket.calls


async def _serving(port: int) -> None:
    """Returns when a call is answered. Its prompt is none of the load's."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "ready?"}]}
    url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}
    deadline = time.monotonic() + START_S
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.post(url, json=body, headers=headers) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing answers on port {port}")
            await asyncio.sleep(0.2)
