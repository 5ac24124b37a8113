"""What a replay refuses, since records would be lost or doubled by it."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.shipper.ranges import Ranges
from proxy.shipper.replay import Lake, NoReplay, Ways, claimed, plan
from proxy.shipper.tracker import Call, Tracker
from tests.proxy.shipper.settled import keep, settle

BY_HTTP = Ways(partitions=0, kafka_record_bytes_max=8 << 20, intake=True)


async def test_what_kafka_acknowledged_does_not_go_by_http(lab: Any) -> None:
    """No consumer has stored any of it, so the lake tells nothing: the copies lie in the topic."""
    worker = lab.worker()
    for _ in range(5):
        worker.call()
    await worker.written()
    worker.die()
    folder = worker.spool.folder
    empty = Lake(held=Ranges(), http_end=0, by_kafka=False)
    settle(folder, 4, http_end=2)
    with claimed(folder), pytest.raises(NoReplay, match="Kafka acknowledged 3 records"):
        plan(folder, empty, replace(BY_HTTP, never_kafka=True), datetime.now(UTC))
    settle(folder, 4, http_end=2, lost=Ranges([(2, 4)]))
    with claimed(folder):
        made = plan(folder, empty, BY_HTTP, datetime.now(UTC))
    assert made.to_http == [0, 1, 2, 3, 4]


async def test_the_lake_must_end_among_the_numbers_that_were_given(lab: Any) -> None:
    """Below: another lake. Above: an older copy of the spool, whose numbers others have in the lake."""
    worker = lab.worker()
    for _ in range(5):
        worker.call()
    await worker.written()
    worker.die()
    folder = worker.spool.folder
    tracker = Tracker()
    tracker.done, tracker.http_next, tracker.http_end = Ranges([(0, 1)]), 2, 2
    for sequence in (2, 3):
        tracker.to_http(tracker.calls.setdefault(sequence, Call(sequence)), worker.ids[sequence])
    keep(folder, tracker)
    for end, fits in ((1, False), (2, True), (4, True), (5, False)):
        lake = Lake(held=Ranges([(0, end - 1)]), http_end=end, by_kafka=False)
        with claimed(folder), nullcontext() if fits else pytest.raises(NoReplay, match=f"the lake ends at {end} "):
            assert plan(folder, lake, BY_HTTP, datetime.now(UTC)).again == 0


async def test_a_shipper_that_follows_the_spool_is_no_bystander(lab: Any) -> None:
    """It holds no lock on a living spool, and takes it over with what it remembers when the writer dies."""
    async with lab.shipping(lab.settings(intake="http://127.0.0.1:9")):
        worker = lab.worker()
        await lab.until(lambda: any((worker.spool.folder / "journal").glob("*.journal")))
        worker.die()  # and the shipper has no turn before we look
        with pytest.raises(NoReplay, match="stop `clearpane proxy`"), claimed(worker.spool.folder):
            raise AssertionError("it must not come to this")
    with claimed(worker.spool.folder):
        pass


async def test_sizes_are_looked_up_in_portions(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.shipper.replay._SIZED_MAX", 3)
    monkeypatch.setattr("proxy.shipper.replay._SIZED_BYTES_MAX", 5000)
    worker = lab.worker()
    for number in range(8):
        worker.call(request=b"x" * 1000 * number)
    worker.open_call()
    await worker.written()
    worker.die()
    with claimed(worker.spool.folder):
        ways = Ways(partitions=6, kafka_record_bytes_max=6000, intake=True)
        made = plan(worker.spool.folder, Lake(held=Ranges(), http_end=0, by_kafka=False), ways, datetime.now(UTC))
    assert sorted(made.to_kafka + made.to_http) == list(range(9))
    assert made.to_http == list(range(min(made.to_http), 8))
