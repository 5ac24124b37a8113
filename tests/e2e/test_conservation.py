"""Every call that was admitted is found again by `clearpane reconcile`: under load, while records wait, and when the lake has lost some."""

import asyncio
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from clearpane.cli.reconcile import reconcile
from clearpane.contract.identifiers import new_request_id
from clearpane.settings import Settings
from clearpane.store import Store
from proxy.shipper.journal import Journal
from proxy.shipper.tracker import Tracker
from proxy.spool import SpoolThread
from tests.e2e.system import Load, clearpane
from tests.e2e.test_no_loss import Whole

pytestmark = [pytest.mark.timeout(300)]


@pytest.mark.kafka
@pytest.mark.s3
async def test_every_call_is_accounted_for(
    tmp_path: Path, stop_after: list[Whole], kafka_bootstrap: str, kafka_topic: str, s3_lake: str
) -> None:
    topic = ["--kafka", kafka_bootstrap, "--topic", kafka_topic]
    whole, data = Whole(tmp_path, s3_lake, kafka_bootstrap, kafka_topic), tmp_path / "proxy"
    stop_after.append(whole)
    await whole.start(workers=2)
    settings = Settings(data=data, kafka=kafka_bootstrap, topic=kafka_topic)

    async def reconciled(since: datetime | None = None) -> dict[str, Any]:
        found = (await reconcile(Store.open(whole.lake), [data], settings, since)).to_dict()
        for row in found["rows"]:
            explained = sum(row[name] for name in ("completed", "interrupted", "in_flight", "missing")) + sum(row["dropped"].values())
            assert row["admitted"] == explained
        return found

    load = Load(whole.port, 400, pause_s=0.01)
    running = asyncio.create_task(load.run())
    while not running.done():
        assert (await reconciled())["balanced"]
    await running
    while (found := await reconciled())["in_flight"]:
        assert found["balanced"]
        await asyncio.sleep(0.1)
    assert found["completed"] == 400

    # What waits is in flight, not lost: nobody takes it out of the topic.
    whole.consumer.stop()
    await Load(whole.port, 100).run()
    while (waiting := await reconciled())["admitted"] < 500:  # the recorder may still be writing it down
        await asyncio.sleep(0.1)
    assert (waiting["completed"], waiting["in_flight"], waiting["missing"], waiting["balanced"]) == (400, 100, 0, True)

    # One object of the lake is gone, and the spools still know the names.
    store = Store.open(whole.lake)
    key = (await store.list("calls/"))[0].key
    lines = gzip.decompress(await store.get(key)).splitlines()
    await store.delete(key)
    await store.delete(key.replace("calls/", "index/").replace(".jsonl.gz", ".parquet"))
    found = await reconciled()
    assert found["missing"] == len(lines)
    named = [name for one in found["missing_ranges"] for name in one["request_ids"]]
    assert sorted(named) == sorted(json.loads(line)["request_id"] for line in lines)
    text = (await clearpane("reconcile", "--data", str(data), "--lake", whole.lake, *topic, codes=(1,))).decode()
    assert all(name in text for name in named[:10])
    assert text.splitlines()[-1] == f"{len(lines)} missing, 0 doubled"

    # A later hour alone is balanced: what is older is not judged.
    later = await reconciled(datetime(2199, 1, 1, tzinfo=UTC))
    assert (later["balanced"], later["missing"]) == (True, 0)


async def test_what_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    found = json.loads(await clearpane("reconcile", "--data", str(tmp_path / "no"), "--lake", str(tmp_path), "--json", codes=(2,)))
    assert found["balanced"] is None
    assert "there is no folder" in found["error"]


async def test_records_that_wait_in_a_spool_are_in_flight(tmp_path: Path) -> None:
    spool = SpoolThread(tmp_path / "spool", bytes_max=1 << 30, segment_bytes=4096, queue_bytes_max=1 << 20)
    spool.start()
    for number in range(50):
        at = {"request_id": new_request_id(), "timing": {"received_at": f"2026-11-21T1{number // 25}:00:00Z"}}
        spool.completed(spool.admit(orjson.dumps(at)), orjson.dumps(at), b"question", b"answer")
    settings, store = Settings(data=tmp_path), Store.open(str(tmp_path / "lake"))
    assert spool.stop(10)
    found = (await reconcile(store, [tmp_path], settings, None)).to_dict()
    assert (found["balanced"], found["admitted"], found["in_flight"]) == (True, 50, 50)
    assert [(row["hour"], row["in_flight"]) for row in found["rows"]] == [("2026-11-21T10", 25), ("2026-11-21T11", 25)]

    # A record that was said to be delivered, and is nowhere.
    kept = Journal(spool.folder)
    kept.load()
    tracker = Tracker()
    tracker.done.add(10, 29)
    kept.rewrite(tracker.snapshot())
    kept.close()
    found = (await reconcile(store, [tmp_path], settings, None)).to_dict()
    assert (found["balanced"], found["in_flight"], found["missing"]) == (False, 30, 20)
    assert [(one["first"], one["last"], one["hour"]) for one in found["missing_ranges"]] == [
        (10, 24, "2026-11-21T10"),
        (25, 29, "2026-11-21T11"),
    ]
    assert [len(one["request_ids"]) for one in found["missing_ranges"]] == [15, 5]
