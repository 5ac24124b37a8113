"""The way by HTTP: every record once, in order, whatever the intake does."""

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_records_arrive_in_their_order(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    async with lab.shipping(lab.posting(intake)):
        for _ in range(500):
            worker.call()
        await lab.until(lambda: len(intake.records) == 500)
    assert [record["request_id"] for record in intake.records] == worker.ids
    assert [record["sequence"] for record in intake.records] == list(range(500))
    assert {record["source"] for record in intake.records} == {worker.spool.spool_id}
    assert {record["attempt"] for record in intake.records} == {1}


async def test_two_workers_have_two_sequences(lab: Any, intake: Any) -> None:
    workers = [lab.worker(), lab.worker()]
    async with lab.shipping(lab.posting(intake)):
        for _ in range(50):
            for worker in workers:
                worker.call()
        await lab.until(lambda: len(intake.records) == 100)
    for worker in workers:
        assert [record["request_id"] for record in intake.logs[worker.spool.spool_id]] == worker.ids


async def test_records_are_collected(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    for _ in range(200):
        worker.call()
    await worker.written()
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 200)
    assert len(intake.posts) < 20


async def test_a_post_has_its_bound(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    for _ in range(40):
        worker.call(response=b"x" * 10_000)
    worker.call(response=b"y" * 200_000)
    await worker.written()
    async with lab.shipping(lab.posting(intake, post_bytes_max=1 << 16)):
        await lab.until(lambda: len(intake.records) == 41)
    assert max(count for _, _, count in intake.posts) <= 6
    assert intake.posts[-1][2] == 1


async def test_settled_segments_and_dead_spools_go(lab: Any, intake: Any) -> None:
    worker = lab.worker(segment_bytes=1 << 16)
    folder = lab.data / "spool" / worker.spool.spool_id
    async with lab.shipping(lab.posting(intake)):
        for _ in range(300):
            worker.call(response=b"x" * 2000)
        await lab.until(lambda: len(intake.records) == 300)
        await lab.until(lambda: len(list(folder.glob("*.seg"))) == 1)
        worker.die()
        await lab.until(lambda: not folder.exists())


async def test_a_long_call_holds_no_segment(lab: Any, intake: Any) -> None:
    worker = lab.worker(segment_bytes=1 << 16)
    folder = lab.data / "spool" / worker.spool.spool_id
    sequence, stated = worker.open_call(started=True)
    async with lab.shipping(lab.posting(intake)):
        for _ in range(100):
            worker.call(response=b"x" * 2000)
        await lab.until(lambda: len(intake.records) == 100)
        await lab.until(lambda: len(list(folder.glob("*.seg"))) == 1)
    # Its facts are in the journal now, and outlive the shipper and the worker.
    worker.die()
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 101)
    assert intake.records[-1]["request_id"] == stated["request_id"]
    assert intake.records[-1]["response"]["end"] == "interrupted"
    assert intake.records[-1]["sequence"] == sequence


async def test_an_open_call_of_a_dead_worker_is_interrupted(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    _, stated = worker.open_call()
    worker.call()
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 1)
        worker.die()
        await lab.until(lambda: len(intake.records) == 2)
    last = intake.records[-1]
    assert (last["request_id"], last["event"], last["response"]["end"]) == (stated["request_id"], "completed", "interrupted")
    assert last["recorded_at"] == stated["recorded_at"]


async def test_a_restart_goes_on_where_it_was(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    for round_ in range(5):
        async with lab.shipping(lab.posting(intake)):
            for _ in range(20):
                worker.call()
            await lab.until(lambda r=round_: len(intake.records) == 20 * (r + 1))
    assert [record["request_id"] for record in intake.records] == worker.ids


async def test_a_stop_delivers_what_is_there(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    async with lab.shipping(lab.settings(intake=intake.url, intake_secret=lab.secret)):
        await asyncio.sleep(0.5)
        worker.call()
        await worker.written()
    assert len(intake.records) == 1


async def test_a_lost_answer_doubles_nothing(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    lost = 0

    async def answer(request: web.Request, lines: list[dict[str, Any]]) -> web.Response | None:
        nonlocal lost
        if lost < 3:
            lost += 1
            intake.store(request.match_info["spool"], int(request.match_info["first"]), lines)
            assert request.transport is not None
            request.transport.close()
        return None

    intake.answer = answer
    async with lab.shipping(lab.posting(intake)):
        for _ in range(30):
            worker.call()
        await lab.until(lambda: len(intake.records) == 30 and lost == 3)
    assert [record["request_id"] for record in intake.records] == worker.ids


@pytest.mark.parametrize("status", [500, 503, 401, 302, 200, 409])
async def test_what_is_not_stored_is_tried_again(lab: Any, intake: Any, status: int, caplog: pytest.LogCaptureFixture) -> None:
    worker = lab.worker()
    failures = 0

    async def answer(request: web.Request, lines: list[dict[str, Any]]) -> web.Response | None:
        nonlocal failures
        failures += 1
        return web.Response(status=status, headers={"Location": intake.url + "/elsewhere"}, text="no JSON") if failures < 4 else None

    intake.answer = answer
    with caplog.at_level(logging.WARNING, "proxy"):
        async with lab.shipping(lab.posting(intake)):
            worker.call(request=b'{"secret": "body"}')
            await lab.until(lambda: len(intake.records) == 1)
    assert len(caplog.records) == 1
    assert "body" not in caplog.text
    assert lab.secret not in caplog.text


async def test_retry_after_is_honoured(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    times: list[float] = []

    async def answer(request: web.Request, lines: list[dict[str, Any]]) -> web.Response | None:
        times.append(asyncio.get_running_loop().time())
        return web.Response(status=503, headers={"Retry-After": "1"}) if len(times) == 1 else None

    intake.answer = answer
    async with lab.shipping(lab.posting(intake)):
        worker.call()
        await lab.until(lambda: len(times) == 2)
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize("status", [400, 413])
async def test_one_refused_record_goes_without_bodies(lab: Any, intake: Any, status: int) -> None:
    worker = lab.worker()
    before = value("clearpane_shipper_shrunk_total", reason="refused")

    async def answer(request: web.Request, lines: list[dict[str, Any]]) -> web.Response | None:
        bad = any("poison" in (line["response"]["body"] or "") for line in lines)
        return web.json_response({"error": "bad"}, status=status) if bad else None

    intake.answer = answer
    for number in range(40):
        worker.call(response=b'{"usage":{"total_tokens":7},"x":"poison"}' if number == 17 else b'{"id":"r"}')
    await worker.written()
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 40)
    assert [record["request_id"] for record in intake.records] == worker.ids
    assert intake.records[17]["response"]["body"] == '{"usage":{"total_tokens":7}}'
    assert intake.records[17]["policy"]["dropped"] == ["request", "response"]
    assert all(record["response"]["body"] == '{"id":"r"}' for number, record in enumerate(intake.records) if number != 17)
    assert value("clearpane_shipper_shrunk_total", reason="refused") == before + 1
    kept = list((lab.data / "poison").iterdir())
    assert [path.name for path in kept] == [f"{worker.spool.spool_id}-17.json"]
    assert b"poison" in kept[0].read_bytes()


async def test_an_intake_that_refuses_everything_loses_nothing(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    refusing = True

    async def answer(request: web.Request, lines: list[dict[str, Any]]) -> web.Response | None:
        return web.json_response({"error": "bad"}, status=400) if refusing else None

    intake.answer = answer
    async with lab.shipping(lab.posting(intake)):
        for _ in range(4):
            worker.call()
        await lab.until(lambda: len(intake.posts) >= 6)
        refusing = False
        await lab.until(lambda: len(intake.records) == 4)
    assert [record["request_id"] for record in intake.records] == worker.ids


async def test_a_lake_that_was_changed_stops_its_spool_only(lab: Any, intake: Any, caplog: pytest.LogCaptureFixture) -> None:
    first, second = lab.worker(), lab.worker()
    with caplog.at_level(logging.WARNING, "proxy"):
        async with lab.shipping(lab.posting(intake)):
            first.call()
            await lab.until(lambda: len(intake.records) == 1)
            intake.logs.clear()
            first.call()
            second.call()
            await lab.until(lambda: "is it another lake" in caplog.text)
            await lab.until(lambda: len(intake.logs.get(second.spool.spool_id, [])) == 1)
    assert not intake.logs.get(first.spool.spool_id)


async def test_conservation(lab: Any, intake: Any) -> None:
    names = ["admitted_total", "completed_total", "interrupted_total"]
    before = {name: value(f"clearpane_shipper_{name}") for name in names}
    sent = value("clearpane_shipper_sent_total", path="http")
    worker = lab.worker()
    for _ in range(3):
        async with lab.shipping(lab.posting(intake)):
            for _ in range(25):
                worker.call()
            await worker.written()
    worker.open_call()
    worker.die()
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 76)
        await lab.until(lambda: not list((lab.data / "spool").iterdir()))
    after = {name: value(f"clearpane_shipper_{name}") - before[name] for name in names}
    assert after == {"admitted_total": 76, "completed_total": 76, "interrupted_total": 1}
    assert value("clearpane_shipper_spooled_records") == 0
    assert value("clearpane_shipper_sent_total", path="http") - sent == 76


async def test_a_gap_is_counted_and_its_calls_are_not_interrupted(lab: Any, intake: Any) -> None:
    before = value("clearpane_shipper_dropped_total", reason="space")
    worker = lab.worker(bytes_max=1 << 20, segment_bytes=1 << 18)
    for _ in range(2000):
        worker.call(response=b"x" * 1000)
    await worker.written()
    assert worker.spool.counters.dropped_records["space"]
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: worker.spool.counters.gaps > 0)
        worker.die()
        await lab.until(lambda: not list((lab.data / "spool").iterdir()))
    dropped = worker.spool.counters.dropped_records["space"]
    assert value("clearpane_shipper_dropped_total", reason="space") - before == dropped
    assert len(intake.records) == 2000 - dropped
    assert not [record for record in intake.records if record["response"]["end"] == "interrupted"]


async def test_two_shippers_do_not_work_at_once(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    async with lab.shipping(lab.posting(intake)), lab.shipping(lab.posting(intake)):
        for _ in range(20):
            worker.call()
        await lab.until(lambda: len(intake.records) == 20)
    assert [record["request_id"] for record in intake.records] == worker.ids


async def test_without_kafka_and_intake_records_wait(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    async with lab.shipping(lab.settings()):
        worker.call()
        await asyncio.sleep(0.3)
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 1)
