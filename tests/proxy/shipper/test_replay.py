"""Spools as an operator sees them: listed, inspected, rescued, delivered again; nothing doubled by it."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearpane.store import Store
from consumer.lake.chain import Chain
from consumer.lake.chain import Lake as LakeOfChains
from consumer.lake.draft import Derivation
from consumer.lake.messages import Message, decode
from consumer.lake.pending import Limits, Pending
from consumer.sources.kafka import client
from consumer.sources.topic import lying, partitions
from proxy.shipper import journal
from proxy.shipper.account import Account, accounts
from proxy.shipper.ranges import Ranges
from proxy.shipper.replay import Lake, NoReplay, Ways, carry_out, claimed, plan
from proxy.shipper.rescue import rescue
from proxy.shipper.survey import survey
from proxy.spool import Damage, walk
from proxy.spool.folder import segment_path
from reader.holdings import holdings
from reader.lake import Hours
from tests.proxy.shipper.settled import settle

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[3]
BY_HTTP = Ways(partitions=0, kafka_record_bytes_max=8 << 20, intake=True)


def clearpane(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "TZ": "UTC"}
    return subprocess.run(
        [sys.executable, "-m", "clearpane.cli", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=200
    )


def lake_of(intake: Any, spool_id: str) -> Lake:
    records = intake.logs.get(spool_id, [])
    return Lake(held=Ranges((r["sequence"], r["sequence"]) for r in records), http_end=len(records), by_kafka=False)


async def delivered(lab: Any, settings: Any, worker: Any) -> None:
    """All is delivered and the spool gone; then it is put back as it was before."""
    saved = {path: path.read_bytes() for path in worker.spool.folder.rglob("*") if path.is_file()}
    async with lab.shipping(settings):
        await lab.until(lambda: not worker.spool.folder.exists(), 60)
    for path, data in saved.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


async def test_a_spool_is_surveyed_while_it_lives_and_when_it_is_dead(lab: Any) -> None:
    worker = lab.worker()
    for _ in range(3):
        worker.call()
    worker.open_call()
    await worker.written()
    found = survey(worker.spool.folder, names=True)
    shown = found.to_dict(datetime.now(UTC))
    assert (shown["state"], shown["admitted"], shown["completed"], shown["waiting"], shown["running"]) == ("living", 4, 3, 3, 1)
    assert [found.names[number].request_id for number in range(4)] == worker.ids
    assert shown["oldest_s"] is not None
    worker.die()
    shown = survey(worker.spool.folder).to_dict(datetime.now(UTC))
    assert (shown["state"], shown["waiting"], shown["running"], shown["in_doubt"], shown["damaged_bytes"]) == ("dead", 4, 0, 0, 0)


async def test_what_the_lake_lost_is_delivered_again_and_nothing_else(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    for _ in range(20):
        worker.call()
    worker.open_call()
    await worker.written()
    worker.die()
    folder = worker.spool.folder
    await delivered(lab, lab.posting(intake), worker)
    log = intake.logs[folder.name]
    assert len(log) == 21
    # The lake of a day before: its end is gone. And the journal is one that says all was delivered.
    del log[15:]
    settle(folder, 20, http_end=21)
    with claimed(folder):
        made = plan(folder, lake_of(intake, folder.name), BY_HTTP, datetime.now(UTC))
        assert (made.held, made.waiting, made.again) == (15, 0, 6)
        carry_out(folder, made)
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: not folder.exists())
    assert Counter(record["request_id"] for record in intake.records) == Counter(worker.ids)
    assert Counter(record["response"]["end"] for record in intake.records) == {"complete": 20, "interrupted": 1}
    (kept,) = accounts(lab.data)
    assert (kept.end, kept.settled.pairs(), kept.lost) == (21, [(0, 20)], {})


async def test_a_spool_without_its_journal_delivers_what_the_lake_lacks(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    for _ in range(12):
        worker.call()
    await worker.written()
    worker.die()
    folder = worker.spool.folder
    await delivered(lab, lab.posting(intake), worker)
    # Other records at the same numbers: numbering anew from 0 would take these for delivered.
    del intake.logs[folder.name][::2]
    with claimed(folder):
        with pytest.raises(NoReplay, match="no journal says what was sent"):
            plan(folder, lake_of(intake, folder.name), BY_HTTP, datetime.now(UTC))
        made = plan(folder, lake_of(intake, folder.name), replace(BY_HTTP, never_kafka=True), datetime.now(UTC))
        assert (made.held, made.again) == (6, 6)
        carry_out(folder, made)
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: not folder.exists())
    assert Counter(record["request_id"] for record in intake.records) == Counter(worker.ids)


async def test_kafka_gets_a_further_attempt_in_the_same_partition(lab: Any) -> None:
    worker = lab.worker()
    for _ in range(5):
        worker.call()
    await worker.written()
    worker.die()
    folder = worker.spool.folder
    held = Lake(held=Ranges([(0, 1)]), http_end=0, by_kafka=True)
    with claimed(folder):
        with pytest.raises(NoReplay, match="give --kafka"):
            plan(folder, held, BY_HTTP, datetime.now(UTC))
        made = plan(folder, held, Ways(partitions=6, kafka_record_bytes_max=8 << 20, intake=False), datetime.now(UTC))
        carry_out(folder, made)
    assert made.to_kafka == [2, 3, 4]
    found = survey(folder)
    assert found.in_doubt == 3
    assert [call.attempt for call in found.tracker.doubtful.values()] == [1, 1, 1]
    assert found.tracker.again(found.tracker.calls[2])[3] == 2


@pytest.mark.kafka
async def test_what_kafka_still_has_is_not_doubled(lab: Any, kafka_bootstrap: str, kafka_topic: str, tmp_path: Path) -> None:
    """Nothing is in the lake yet, so all is sent again; and the chain takes each once."""
    worker = lab.worker()
    for _ in range(30):
        worker.call()
    await worker.written()
    worker.die()
    folder, sending = worker.spool.folder, lab.settings(kafka=kafka_bootstrap, topic=kafka_topic)
    await delivered(lab, sending, worker)
    settle(folder, 29)
    with claimed(folder):
        ways = Ways(partitions=await partitions(sending), kafka_record_bytes_max=8 << 20, intake=False)
        made = plan(folder, Lake(held=Ranges(), http_end=0, by_kafka=False), ways, datetime.now(UTC))
        carry_out(folder, made)
    assert len(made.to_kafka) == 30
    async with lab.shipping(sending):
        await lab.until(lambda: not folder.exists(), 60)
    found = [one async for one in lying(sending, {})]
    assert Counter(one.request_id for one in found) == Counter(2 * worker.ids)

    consumer = client(sending, None, kafka_topic)
    await consumer.start()
    ends = await consumer.end_offsets(sorted(consumer.assignment()))
    derivation = Derivation(derive=lambda _: {}, row=lambda record: {"request_id": record["request_id"], "attempt": record["attempt"]})
    lake = LakeOfChains(store=Store.open(str(tmp_path / "lake")), derivation=derivation, limits=Limits(records_max=10, bytes_max=1 << 20))
    stored: list[Any] = []
    for partition, end in ends.items():
        chain = await Chain.open(lake, f"k-t-0-{partition.partition}")
        pending = Pending(end=0)
        consumer.seek(partition, 0)
        for message in [await consumer.getone(partition) for _ in range(end)]:
            pending.add(message.offset, decode(Message(message.offset, message.timestamp, message.value)))
        await chain.append(pending)
        consumer.pause(partition)
    await consumer.stop()
    async for batch in holdings(lake.store, Hours()):
        stored += batch
    assert Counter(one.request_id for one in stored) == Counter(worker.ids)


async def test_a_record_too_large_for_kafka_goes_by_http(lab: Any) -> None:
    worker = lab.worker()
    worker.call(request=b"x" * 20_000)
    worker.call()
    await worker.written()
    worker.die()
    with claimed(worker.spool.folder):
        ways = Ways(partitions=6, kafka_record_bytes_max=10_000, intake=True)
        made = plan(worker.spool.folder, Lake(held=Ranges(), http_end=0, by_kafka=False), ways, datetime.now(UTC))
    assert (made.to_http, made.to_kafka) == ([0], [1])


async def test_a_spool_that_is_held_is_left_alone(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    worker.call()
    await worker.written()
    with pytest.raises(NoReplay, match="held by its writer or by a shipper"), claimed(worker.spool.folder):
        raise AssertionError("it must not come to this")
    found = clearpane(
        "spool", "replay", worker.spool.folder.name, "--data", str(lab.data), "--lake", str(lab.data), "--intake", intake.url, cwd=lab.data
    )
    assert found.returncode == 1
    assert "stop `clearpane proxy`" in found.stderr


async def test_the_commands_say_what_there_is(lab: Any) -> None:
    worker = lab.worker()
    first = worker.call(request=b'{"question":"SECRET-BODY"}')
    worker.call()
    await worker.written()
    worker.die()
    folder = worker.spool.folder
    (segment,) = folder.glob("*.seg")
    data = bytearray(segment.read_bytes())
    frames = [one for one in walk(folder, sealed=True) if not isinstance(one, Damage)]
    data[frames[2].end - 5] ^= 0x20
    segment.write_bytes(bytes(data))

    listed = json.loads(clearpane("spool", "list", "--data", str(lab.data), "--json", cwd=lab.data).stdout)
    assert [(one["spool"], one["state"], one["completed"]) for one in listed] == [(folder.name, "dead", 2)]
    assert listed[0]["damaged_bytes"] == frames[2].end - frames[1].end
    table = clearpane("spool", "list", "--data", str(lab.data), cwd=lab.data)
    assert (table.returncode, folder.name in table.stdout, "are damaged" in table.stdout) == (1, True, True)

    shown = clearpane("spool", "inspect", folder.name, "--data", str(lab.data), "--json", cwd=lab.data)
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert shown.returncode == 1
    assert [line["type"] for line in lines] == ["admitted", "completed", "damaged", "completed"]
    assert (lines[2]["from"], lines[2]["to"]) == (frames[1].end, frames[2].end)
    assert lines[1]["request_id"] == first
    assert "SECRET-BODY" not in shown.stdout
    assert not {"facts", "request", "response"} & set(lines[1])
    asked = clearpane("spool", "inspect", str(folder), "--bodies", "--facts", cwd=lab.data)
    assert "SECRET-BODY" in asked.stdout

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    foreign = lab.data / "copied"
    folder.rename(foreign)
    nothing = clearpane("spool", "rescue", str(foreign), "--to", "out", cwd=lab.data)
    assert (nothing.returncode, "--spool-id" in nothing.stderr) == (1, True)
    saved = clearpane("spool", "rescue", str(foreign), "--spool-id", folder.name, "--to", "out", "--json", cwd=lab.data)
    report = json.loads(saved.stdout)
    assert (report["records"], report["interrupted"], saved.returncode) == (2, 0, 1)
    records = [json.loads(line) for line in (lab.data / "out" / f"{folder.name}.jsonl").read_text().splitlines()]
    assert [record["request_id"] for record in records] == worker.ids
    assert records[0]["request"]["body"] == '{"question":"SECRET-BODY"}'
    assert {foreign / path.relative_to(folder): data for path, data in before.items()} == {
        path: path.read_bytes() for path in foreign.rglob("*") if path.is_file()
    }


async def test_a_rescue_calls_no_call_interrupted_that_ended(lab: Any, tmp_path: Path) -> None:
    worker = lab.worker(bytes_max=400_000)
    worker.open_call()
    for _ in range(60):
        worker.call(request=b"x" * 10_000)
    await worker.written()
    worker.die()
    dropped = survey(worker.spool.folder).tracker.lost_for["space"].count
    found = rescue(worker.spool.folder, tmp_path / "out", worker.spool.folder.name)
    assert dropped
    assert (found.records, found.interrupted) == (60 - dropped, 1)
    assert (tmp_path / "out" / f"{worker.spool.folder.name}.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_journal_that_is_a_link_to_nowhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "0000000001.journal").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        journal.peek(tmp_path)


async def test_drops_are_kept_by_reason_when_the_spool_is_gone(lab: Any, intake: Any) -> None:
    worker = lab.worker(bytes_max=60_000)
    for _ in range(60):
        worker.call(request=b"x" * 500)
    await worker.written()
    worker.die()
    stated = survey(worker.spool.folder).tracker.lost_for
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: not worker.spool.folder.exists())
    # Its removal was cut short behind the journal: what is left knows nothing, and says so in no account.
    worker.spool.folder.mkdir()
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: not worker.spool.folder.exists())
    (kept,) = accounts(lab.data)
    assert kept.end == 60
    assert {reason: found.pairs() for reason, found in kept.lost.items()} == {reason: found.pairs() for reason, found in stated.items()}
    assert kept.lost["space"].count + len(intake.records) == 60


@given(st.binary(max_size=200))
def test_garbage_is_no_account(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an account"):
        Account.from_json(data)


ranges = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=5).map(lambda pairs: Ranges((a, a + b) for a, b in pairs))


@given(ranges, st.dictionaries(st.sampled_from(["space", "queue"]), ranges), st.integers(0, 99))
def test_an_account_reads_back(settled: Ranges, lost: dict[str, Ranges], end: int) -> None:
    made = Account("0" * 32, end, settled, lost)
    found = Account.from_json(made.to_json())
    assert (found.spool, found.end, found.settled.pairs()) == (made.spool, end, settled.pairs())
    assert {reason: one.pairs() for reason, one in found.lost.items()} == {reason: one.pairs() for reason, one in lost.items()}
    broken = orjson.loads(made.to_json()) | {"end": -1}
    with pytest.raises(ValueError, match="not an account"):
        Account.from_json(orjson.dumps(broken))


def test_any_damage_leaves_frames_and_damage_that_fill_the_segment(lab: Any, tmp_path: Path) -> None:
    worker = lab.worker()
    for _ in range(4):
        worker.call()
    worker.die()
    folder = worker.spool.folder
    path = segment_path(folder, 0)
    whole = path.read_bytes()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=40), st.integers(0, len(whole)))
    def damaged(at: int, noise: bytes, cut: int) -> None:
        data = (whole[:at] + noise + whole[at + len(noise) :])[:cut]
        path.write_bytes(data)
        ends = [0]
        for one in walk(folder, sealed=True):
            start = one.start if isinstance(one, Damage) else one.end - len(one.payload) - 17
            assert start == ends[-1]
            ends.append(one.end)
        assert ends[-1] == len(data)

    damaged()


def test_a_rescue_does_not_overwrite(lab: Any, tmp_path: Path) -> None:
    worker = lab.worker()
    worker.call()
    worker.die()
    to = tmp_path / "out"
    rescue(worker.spool.folder, to, worker.spool.folder.name)
    again = clearpane("spool", "rescue", str(worker.spool.folder), "--to", str(to), cwd=tmp_path)
    assert (again.returncode, "exists" in again.stderr) == (1, True)
    inside = clearpane("spool", "rescue", str(worker.spool.folder), "--to", str(worker.spool.folder / "x"), cwd=tmp_path)
    assert inside.returncode == 1
