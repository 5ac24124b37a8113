"""A replay beside the consumer's own intake, over a lake that lost something: an object, a head, an index, a day."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from clearpane.cli import reconcile as reconciling
from clearpane.contract.identifiers import Log
from clearpane.contract.lake import Pruned, head_key
from clearpane.contract.members import unseal
from clearpane.store import Store
from consumer.derive import PriceBook, derive, row
from consumer.lake.chain import Lake
from consumer.lake.draft import Derivation
from consumer.lake.pending import Limits
from consumer.lake.tail import Tail
from consumer.sources.intake import Intake, IntakeSettings
from proxy.shipper.journal import Journal
from proxy.shipper.ranges import Ranges
from proxy.shipper.tracker import Tracker
from reader.holdings import end_of, holdings
from reader.lake import Hours, LakeError
from reader.verify import verify

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[3]
BOOK = PriceBook()
DERIVATION = Derivation(derive=lambda found: derive(found, BOOK), row=row)
CALLS = 20


@dataclass
class World:
    """A spool of 20 calls that were delivered, four objects of five; and the spool as it was, its journal included."""

    lab: Any
    store: Store
    folder: Path = Path()
    ids: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def log(self) -> str:
        return Log.of_spool(self.folder.name).name

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[None]:
        """One life of an intake: what it remembers ends with it."""
        lake = Lake(store=self.store, derivation=DERIVATION, limits=Limits(records_max=5, bytes_max=1 << 20))
        stated = IntakeSettings(host="127.0.0.1", port=self.port, secret=self.lab.secret, bytes_max=1 << 20, deadline_s=20)
        intake = Intake(lake, stated)
        await intake.start()
        self.port = intake.address[1]
        try:
            yield
        finally:
            await intake.stop()

    async def fill(self, ids: tuple[str, ...] = ()) -> None:
        worker = self.lab.worker()
        for number in range(CALLS):
            stated = self.lab.facts(ids[number] if number < len(ids) else None)
            stated["timing"]["received_at"] = datetime.now(UTC).isoformat()
            sequence = worker.spool.admit(self.lab.admission(stated))
            worker.spool.completed(sequence, orjson.dumps(stated), b"{}", b"{}")
            self.ids.append(stated["request_id"])
        await worker.written()
        worker.die()
        self.folder = worker.spool.folder
        saved = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        await self.ship()
        for path, data in saved.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        tracker, kept = Tracker(), Journal(self.folder)
        tracker.done, tracker.http_next, tracker.http_end = Ranges([(0, CALLS - 1)]), CALLS, CALLS
        kept.load()
        kept.rewrite(tracker.snapshot())
        kept.close()
        self.objects = [entry.key for entry in await self.store.list("calls/")]
        assert len(self.objects) == 4

    async def ship(self) -> None:
        async with self.lab.shipping(self.lab.settings(intake=self.url, intake_secret=self.lab.secret)):
            await self.lab.until(lambda: not self.folder.exists(), 30)

    async def lose(self, key: str) -> None:
        await self.store.delete(key)
        await self.store.delete(key.replace("calls/", "index/").replace(".jsonl.gz", ".parquet"))

    async def replay(self, *more: str, code: int = 0) -> str:
        found = await asyncio.to_thread(self._replay, *more)
        assert found.returncode == code, found.stderr
        assert "Traceback" not in found.stderr
        return found.stdout + found.stderr

    def _replay(self, *more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC", "CLEARPANE_INTAKE_SECRET": self.lab.secret}
        where = ["--data", str(self.lab.data), "--lake", str(self.lab.data / "lake"), "--intake", self.url]
        command = [sys.executable, "-m", "clearpane.cli", "spool", "replay", self.folder.name, *where, *more]
        return subprocess.run(command, cwd=self.lab.data, env=environment, capture_output=True, text=True, timeout=100)

    async def is_whole(self) -> None:
        held = [one async for batch in holdings(self.store, Hours()) for one in batch]
        assert Counter(one.request_id for one in held) == Counter(self.ids)
        assert [finding.kind for finding in (await verify(self.store)).findings if finding.kind != "index_missing"] == []


@pytest.fixture
async def world(lab: Any) -> World:
    made = World(lab, Store.open(str(lab.data / "lake")))
    async with made.consumer():
        await made.fill()
    return made


async def test_without_a_head_the_end_is_that_of_the_last_object(world: World) -> None:
    """Numbered from 0, all would be taken for delivered, and the spool taken away."""
    await world.lose(world.objects[-1])
    await world.store.delete(head_key(world.log))
    async with world.consumer():
        assert "again: 0 by Kafka, 5 by HTTP" in await world.replay()
        await world.ship()
    await world.is_whole()


async def test_a_head_that_is_behind_is_passed(world: World) -> None:
    manifest, _ = unseal(await world.store.get(world.objects[0]))
    behind = Tail(log=world.log, genesis=0, end=manifest.end, key=world.objects[0], sha256=manifest.sha256)
    await world.lose(world.objects[-1])
    await world.store.put(head_key(world.log), behind.to_json())
    async with world.consumer():
        assert "again: 0 by Kafka, 5 by HTTP" in await world.replay()
        await world.ship()
    await world.is_whole()


async def test_a_consumer_that_remembers_what_the_lake_lost_must_be_restarted(lab: Any) -> None:
    world = World(lab, Store.open(str(lab.data / "lake")))
    async with world.consumer():
        await world.fill()
        await world.lose(world.objects[-1])
        await world.store.delete(head_key(world.log))
        before = Journal(world.folder).load()
        said = await world.replay(code=1)
        assert "the lake ends at 15 for this spool, and the intake says 20: restart the consumers" in said
        assert Journal(world.folder).load() == before
    said = await world.replay(code=1)
    assert "does not say where this spool ends (unreachable, status 0)" in said
    async with world.consumer():
        assert "again: 0 by Kafka, 5 by HTTP" in await world.replay()
        await world.ship()
    await world.is_whole()


async def test_what_no_index_tells_is_read_from_the_objects(world: World) -> None:
    """One index is gone, one damaged, and one has lost its object."""
    index = [entry.key for entry in await world.store.list("index/")]
    await world.store.delete(index[0])
    await world.store.put(index[1], b"no Parquet")
    await world.store.delete(world.objects[3])
    async with world.consumer():
        assert "15 records are in the lake" in await world.replay()
        await world.ship()
    await world.store.delete(index[3])
    await world.store.delete(index[1])
    held = [one async for batch in holdings(world.store, Hours()) for one in batch]
    assert Counter(one.request_id for one in held) == Counter(world.ids)


async def test_an_object_tells_what_its_index_would(world: World) -> None:
    told = [one async for batch in holdings(world.store, Hours()) for one in batch]
    for entry in await world.store.list("index/"):
        await world.store.delete(entry.key)
    assert [one async for batch in holdings(world.store, Hours()) for one in batch] == told
    await world.store.put(world.objects[2], b"no object")
    with pytest.raises(LakeError, match="is damaged"):
        _ = [one async for one in holdings(world.store, Hours())]


async def test_the_end_is_the_furthest_that_anything_says(world: World) -> None:
    assert await end_of(world.store, world.log, Hours()) == 20
    await world.store.delete(head_key(world.log))
    assert await end_of(world.store, world.log, Hours()) == 20
    mark = Pruned(log=world.log, end=10, key=world.objects[1], sha256="0", before=datetime.now(UTC))
    await world.store.put(mark.mark, mark.to_json())
    for key in world.objects:
        await world.store.delete(key)
    assert await end_of(world.store, world.log, Hours()) == 10
    assert await end_of(world.store, "h-" + "0" * 32, Hours()) == 0


@pytest.mark.parametrize("head", [b"{", b"{}", b"[]", b'{"genesis": 0, "end": "1"}', b'{"genesis": 2, "end": 1}'])
async def test_a_head_that_is_none_is_said(world: World, head: bytes) -> None:
    await world.store.put(head_key(world.log), head)
    with pytest.raises(LakeError, match="not a head of this version: delete it"):
        await end_of(world.store, world.log, Hours())


async def test_what_is_too_old_is_counted_and_is_no_success(lab: Any) -> None:
    old = f"{int((datetime.now(UTC) - timedelta(days=61)).timestamp() * 1000):012x}"
    world = World(lab, Store.open(str(lab.data / "lake")))
    async with world.consumer():
        await world.fill((f"{old[:8]}-{old[8:]}-7000-8000-000000000000",))
        await world.lose(world.objects[0])
        said = await world.replay("--dry-run", code=1)
    assert "again: 0 by Kafka, 4 by HTTP\nnot again: 1 too old, 0 unreadable" in said


async def test_a_folder_whose_name_is_no_time_is_refused(world: World) -> None:
    renamed = world.folder.with_name("f" * 32)
    world.folder.rename(renamed)
    world.folder = renamed
    async with world.consumer():
        assert "its folder was renamed" in await world.replay(code=1)


async def test_a_retention_that_runs_meanwhile_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what it deletes behind our look at its marks would be missing."""
    mark = Pruned(log=world.log, end=10, key=world.objects[1], sha256="0", before=datetime.now(UTC) - timedelta(days=30))

    async def pruned(*arguments: Any) -> AsyncIterator[Any]:
        await world.store.put(mark.mark, mark.to_json())
        async for one in holdings(*arguments):
            yield one

    settings = world.lab.settings()
    assert (await reconciling.reconcile(world.store, [world.lab.data], settings, None)).balanced
    monkeypatch.setattr(reconciling, "holdings", pruned)
    with pytest.raises(LakeError, match="look again"):
        await reconciling.reconcile(world.store, [world.lab.data], settings, None)
