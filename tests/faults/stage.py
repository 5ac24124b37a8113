"""The whole system as real processes under a load of mixed calls; faults are done to it, and then it is judged."""

import asyncio
import contextlib
import gzip
import hashlib
import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from clearpane.store import Store
from proxy.spool import spools
from reader.verify import verify
from tests.e2e.system import Load, Outcome, Process, free_port

FLUSH_S = 0.2
SETTLE_S = 90.0
LAST_CALLS_S = 30.0
QUIET_S = 1.5


async def metric(port: int, name: str, **labels: str) -> float:
    """The sum over all other labels."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    return sum(
        sample.value for family in families for sample in family.samples if sample.name == name and labels.items() <= sample.labels.items()
    )


class Proxy(Process):
    """With variables of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self._environment = environment
        super().__init__(folder, "proxy", *arguments)

    def environment(self) -> dict[str, str]:  # type: ignore[override]
        own = dict(self._environment)
        path = [part for part in (own.pop("PYTHONPATH", ""), Process.environment()["PYTHONPATH"]) if part]
        return {**Process.environment(), **own, "PYTHONPATH": os.pathsep.join(path)}

    def kill(self) -> None:
        """SIGKILL to parent, workers and shipper at once. A recorder is in a session of its own: it writes what it has, and ends."""
        for pid in (self.process.pid, *self.children("proxy.worker"), *self.children("proxy.shipper")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Member(Process):
    """A consumer of the group; the stage makes it."""

    def __init__(self, folder: Path, name: str, environment: dict[str, str], *arguments: str) -> None:
        self._environment = environment
        self.metrics_port = free_port()
        super().__init__(folder, name, "tests.faults.member", *arguments, "--metrics", str(self.metrics_port))

    def environment(self) -> dict[str, str]:  # type: ignore[override]
        return {**Process.environment(), **self._environment}

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def died(self, timeout_s: float = 40.0) -> None:
        """Returns when its place to die at was reached."""
        async with asyncio.timeout(timeout_s):
            while self.alive:
                await asyncio.sleep(0.02)

    async def metric(self, name: str) -> float:
        return await metric(self.metrics_port, name)


@dataclass
class Contents:
    """What is in the lake, read from calls/ alone; an object that was read is not read again."""

    store: Store
    calls: Counter[str] = field(default_factory=Counter)  # by the id that the client gave
    request_ids: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    logs: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    large: dict[str, str] = field(default_factory=dict)  # request bodies of large_call()
    bare: int = 0  # records that lost their bodies on the way
    negative: int = 0  # records with a time below zero
    placeholders: int = 0
    poison: int = 0
    objects: set[str] = field(default_factory=set)

    async def refresh(self) -> None:
        for entry in await self.store.list("calls/"):
            if entry.key not in self.objects:
                data = await self.store.get(entry.key)
                self.objects.add(entry.key)
                for line in gzip.decompress(data).splitlines():
                    self._add(orjson.loads(line))

    def _add(self, record: dict[str, Any]) -> None:
        self.logs[record["lake"]["log"]] += 1
        if record["request_id"] is None:
            self.poison += 1
            return
        if record["client_request_id"] is None:
            self.placeholders += 1  # of a record that the spool's disk has lost
        else:
            self.calls[record["client_request_id"]] += 1
        self.request_ids[record["request_id"]] += 1
        self.ends[record["response"]["end"]] += 1
        self.attempts[record["attempt"]] += 1
        self.bare += bool(record["policy"]["dropped"])
        self.negative += any(isinstance(value, float) and value < 0 for value in record["timing"].values())
        if str(record["client_request_id"]).startswith("large-"):
            self.large[record["client_request_id"]] = record["request"]["body"]

    def by(self, prefix: str) -> int:
        """Records of logs whose name begins so: `k-` came by Kafka, `h-` by HTTP."""
        return sum(count for log, count in self.logs.items() if log.startswith(prefix))


@dataclass(frozen=True)
class Verdict:
    calls: int
    whole: int  # that their client saw whole
    recorded: int
    lost: list[str]
    doubled: list[str]
    findings: list[str]  # of `clearpane verify`
    contents: Contents

    def check(self) -> "Verdict":
        """The oracle: every call whole at its client, each recorded once, the chains as they must be."""
        assert self.whole == self.calls, f"{self.calls - self.whole} of {self.calls} calls did not get their answer"
        return self.check_records()

    def check_records(self) -> "Verdict":
        assert not self.lost, f"{len(self.lost)} of {self.whole} lost: {self.lost[:5]}"
        assert not self.doubled, f"{len(self.doubled)} doubled: {self.doubled[:5]}"
        assert not self.findings, self.findings[:5]
        return self


async def judge(outcomes: dict[str, Any], lake: str) -> Verdict:
    """Of the lake as it is now."""
    contents = Contents(Store.open(lake))
    await contents.refresh()
    whole = [name for name, outcome in outcomes.items() if outcome.whole and outcome.status == 200]
    doubled = [name for name, count in (contents.calls + contents.request_ids).items() if count > 1]
    report = await verify(Store.open(lake))
    return Verdict(
        calls=len(outcomes),
        whole=len(whole),
        recorded=contents.request_ids.total(),
        lost=[name for name in whole if not contents.calls[name]],
        doubled=doubled,
        findings=[f"{finding.kind}: {finding.detail}" for finding in report.findings],
        contents=contents,
    )


class Stage:
    """`store`: how the consumers reach the lake's S3; `kafka` of the proxy may differ from the consumers'; `proxy`: its variables."""

    def __init__(
        self, folder: Path, lake: str, *,
        kafka: str | None = None, topic: str = "", store: dict[str, str] | None = None, proxy: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.lake = lake
        self.load = Load(free_port(), calls=10**9, connections=6, pause_s=0.02)
        self.members: list[Member] = []
        self.proxy: Proxy
        self.intake_port, self._admin_port = free_port(), free_port()
        self._folder, self._kafka, self._topic = folder, kafka, topic
        self._store, self._variables = store or {}, proxy or {}
        self._provider: Process
        self._loading: asyncio.Task[None] | None = None

    async def start(
        self, *, consumers: int = 1, intake: str | None = "", proxy_kafka: str | None = "", workers: int = 1,
        upstream: int | None = None, pace: str = "0", **member: Any,
    ) -> None:  # fmt: skip
        """Returns with the load running. `intake`, `proxy_kafka`: where the proxy is told to deliver; "" is the stage's own.

        `upstream`: the port of one that the test plays itself.
        """
        port = upstream or free_port()
        provider = []
        if upstream is None:
            self._provider = Process(self._folder, "provider", "clearpane.cli.fake", "--port", str(port), "--pace", pace)
            provider = [self._provider]
        members = [self.member(intake=number == 0, **member) for number in range(consumers)]
        intake = f"http://127.0.0.1:{self.intake_port}" if intake == "" else intake
        self.start_proxy(port, intake, self._kafka if proxy_kafka == "" else proxy_kafka, workers)
        await asyncio.gather(*(process.ready() for process in (*provider, self.proxy, *members)))
        self._loading = asyncio.create_task(self.load.run())

    @property
    def loading(self) -> "asyncio.Task[None]":
        """Ends when all calls are made."""
        assert self._loading is not None
        return self._loading

    async def replace_proxy(self) -> None:
        """SIGTERM, a clean end, and the next one: calls are refused between the two."""
        await asyncio.to_thread(self.proxy.stop)
        await self.next_proxy()

    async def next_proxy(self) -> None:
        """In the place of one that is gone."""
        self.proxy = Proxy(self._folder, self._variables, *self.proxy._arguments)
        await self.proxy.ready()

    @property
    def spools(self) -> list[Path]:
        return spools(self._folder / "proxy" / "spool")

    async def adopted(self, spool: Path, timeout_s: float = 60.0) -> None:
        """Returns when this spool is settled and gone."""
        async with asyncio.timeout(timeout_s):
            while spool in self.spools:
                await asyncio.sleep(0.05)

    def start_proxy(self, provider_port: int, intake: str | None, kafka: str | None, workers: int) -> None:
        upstream = f"http://127.0.0.1:{provider_port}"
        delivery = ["--intake", intake] if intake else []
        delivery += ["--kafka", kafka, "--topic", self._topic] if kafka else []
        self.proxy = Proxy(
            self._folder, self._variables, "clearpane.cli", "proxy",
            "--data", str(self._folder / "proxy"), "--listen", f"127.0.0.1:{self.load.port}", "--admin", f"127.0.0.1:{self._admin_port}",
            "--default-upstream", upstream, "--upstream", f"openai={upstream}", "--upstream", f"anthropic={upstream}",
            "--workers", str(workers), "--flush-seconds", str(FLUSH_S), *delivery,
        )  # fmt: skip

    def member(self, *, die: str | None = None, intake: bool = False, store: dict[str, str] | None = None, **settings: Any) -> Member:
        """A further consumer; not ready yet."""
        stated: dict[str, Any] = {"lake": self.lake, "data": str(self._folder), "flush_seconds": FLUSH_S, "object_records_max": 40}
        if self._kafka:
            stated |= {"kafka": self._kafka, "topic": self._topic, "kafka_group": self._topic}
        if intake or not self._kafka:
            stated |= {"intake": f"http://127.0.0.1:{self.intake_port}"}
        arguments = [orjson.dumps(stated | settings).decode(), *(["--die", die] if die else [])]
        name = f"consumer-{len(self.members)}"
        self.members.append(Member(self._folder, name, self._store if store is None else store, *arguments))
        return self.members[-1]

    async def recorded(self, more: int, timeout_s: float = 40.0) -> None:
        """Returns when so many more records are in the lake than now."""
        contents = Contents(Store.open(self.lake))
        await contents.refresh()
        wanted = contents.request_ids.total() + more
        async with asyncio.timeout(timeout_s):
            while contents.request_ids.total() < wanted:
                await asyncio.sleep(0.05)
                await contents.refresh()

    async def logged(self, prefix: str, more: int, timeout_s: float = 90.0) -> None:
        """Returns when so many more records are in logs of this prefix."""
        contents = Contents(Store.open(self.lake))
        await contents.refresh()
        wanted = contents.by(prefix) + more
        async with asyncio.timeout(timeout_s):
            while contents.by(prefix) < wanted:
                await asyncio.sleep(0.1)
                await contents.refresh()

    async def said(self, words: str, times: int, timeout_s: float = 60.0) -> None:
        """Returns when the consumers have said this so often."""
        async with asyncio.timeout(timeout_s):
            while self.log().count(words) < times:
                await asyncio.sleep(0.1)

    async def called(self, more: int, timeout_s: float = 40.0) -> None:
        """Returns when so many more calls were made."""
        wanted = len(self.load.outcomes) + more
        async with asyncio.timeout(timeout_s):
            while len(self.load.outcomes) < wanted:
                await asyncio.sleep(0.02)

    async def large_call(self, number: int, size: int) -> str:
        """One call with a prompt of so many characters; its body."""
        text = hashlib.sha256(b"%d" % number).hexdigest()
        body = json.dumps({"model": "gpt-4.1", "input": (text * (size // len(text) + 1))[:size]})
        headers = {
            "Content-Type": "application/json",
            "Clearpane-Request-Id": f"large-{number}",
            "Authorization": "Bearer sk-large-0123456789",
        }
        began, url = time.monotonic(), f"http://127.0.0.1:{self.load.port}/v1/responses"
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
            await answer.read()
            self.load.outcomes[f"large-{number}"] = Outcome(answer.status, True, time.monotonic() - began, began)
        return body

    async def judged(self, timeout_s: float = SETTLE_S, *, dropped: int = 0) -> Verdict:
        """Ends the load, waits until each call is recorded but those dropped, and nothing more comes, and looks at everything."""
        await self.quiet()
        await self.all_recorded(timeout_s, dropped)
        await asyncio.sleep(QUIET_S)
        return await judge(self.load.outcomes, self.lake)

    async def all_recorded(self, timeout_s: float = SETTLE_S, dropped: int = 0) -> None:
        """Returns when each whole call is in the lake, or when the time is over: the verdict says which are not."""
        contents = Contents(Store.open(self.lake))
        wanted = [name for name, outcome in self.load.outcomes.items() if outcome.whole and outcome.status == 200]
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            await contents.refresh()
            if sum(not contents.calls[name] for name in wanted) <= dropped:
                return
            await asyncio.sleep(0.2)

    async def quiet(self) -> None:
        """Ends the load; go_on() takes it up again."""
        self.load.stopped = True
        if self._loading is not None:
            await asyncio.wait_for(self._loading, LAST_CALLS_S)

    def go_on(self) -> None:
        self.load.stopped = False
        self._loading = asyncio.create_task(self.load.run())

    async def stopped(self, member: Member) -> None:
        """SIGTERM, and a clean end."""
        await asyncio.to_thread(member.stop)
        assert member.process.returncode == 0, member.log.read_text()[-2000:]

    async def all_spooled(self, timeout_s: float = 60.0) -> int:
        """Returns when each call of an ended load is in a spool, or dropped and counted: how many were dropped."""
        await self.quiet()
        async with asyncio.timeout(timeout_s):
            while True:
                written = await self.proxy_metric("clearpane_proxy_spool_completed_total")
                dropped = await self.proxy_metric("clearpane_proxy_spool_dropped_records_total")
                if written + dropped == await self.proxy_metric("clearpane_proxy_calls_admitted_total"):
                    return int(dropped)
                await asyncio.sleep(0.1)

    async def shipped(self, dropped: int, timeout_s: float = 90.0) -> None:
        """Returns when the shipper has taken leave of all that is in the spools, and was told of so many dropped records."""
        async with asyncio.timeout(timeout_s):
            while True:
                admitted = await self.proxy_metric("clearpane_proxy_calls_admitted_total")
                sent = await self.proxy_metric("clearpane_shipper_sent_total")
                if sent + dropped == admitted and await self.proxy_metric("clearpane_shipper_dropped_total") == dropped:
                    return
                await asyncio.sleep(0.1)

    async def proxy_metric(self, name: str, **labels: str) -> float:
        return await metric(self._admin_port, name, **labels)

    async def counted(self, name: str, more: int, timeout_s: float = 60.0, **labels: str) -> None:
        """Returns when a metric of the proxy has grown by so much."""
        wanted = await self.proxy_metric(name, **labels) + more
        async with asyncio.timeout(timeout_s):
            while await self.proxy_metric(name, **labels) < wanted:
                await asyncio.sleep(0.1)

    def log(self) -> str:
        """What all consumers said."""
        return "".join(member.log.read_text() for member in self.members)

    def stop(self) -> None:
        """In the order in which records flow; a member that was killed is gone already."""
        for process in (getattr(self, "proxy", None), *self.members, getattr(self, "_provider", None)):
            if process is None:
                continue
            if process.process.poll() is None:
                os.kill(process.process.pid, signal.SIGCONT)
            try:
                process.stop()
            except AssertionError:
                assert process.process.stdout is not None
                process.process.stdout.close()
                raise
