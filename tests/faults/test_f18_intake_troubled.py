"""F18: no Kafka, and an intake that is down, answers 500, is slow, or whose answers are lost."""

import asyncio

import pytest

from tests.faults.conftest import SetUp, Tell
from tests.faults.front import Front

pytestmark = [pytest.mark.s3, pytest.mark.timeout(240), pytest.mark.full]


async def test_records_wait_in_the_spool(set_up: SetUp, s3_lake: str, tell: Tell, seed: int) -> None:
    stage = set_up(s3_lake)
    intake = Front(f"http://127.0.0.1:{stage.intake_port}", seed=seed)
    await intake.start()
    try:
        await stage.start(intake=intake.url)
        intake.add(name="500", method="POST", folder="records", status=500, share=0.2)
        intake.add(name="answer lost", method="POST", folder="records", drop=True, share=0.3)
        intake.add(name="cut", method="POST", folder="records", cut_request=True, share=0.2)
        intake.add(name="1 s late", method="POST", folder="records", delay_s=1.0, share=0.2)
        await stage.called(1000)
        stage.members[0].kill()
        await stage.called(1000)
        await stage.member(intake=True).ready()
        await stage.recorded(100)
        intake.clear()
        verdict = (await stage.judged()).check()
    finally:
        await stage.quiet()
        await asyncio.to_thread(stage.stop)
        await intake.stop()
    seen = ", ".join(f"{name}: {count}" for name, count in sorted(intake.counts.items()))
    tell("F18", "no Kafka; intake answers 500, late, not at all, is killed", verdict, seen)
    assert intake.counts["answer lost"] >= 1
