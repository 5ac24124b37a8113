"""F19: Kafka, intake and store are all out of reach, and the spool fills."""

from pathlib import Path

import pytest

from tests.faults.conftest import SetUp, Tell

pytestmark = pytest.mark.timeout(300)

SMALL = {"CLEARPANE_SPOOL_BYTES_MAX": "1MiB", "CLEARPANE_SPOOL_SEGMENT_BYTES": "64KiB"}
DROPPED_MIN = 100


async def test_bodies_go_first_then_records_and_each_is_counted(set_up: SetUp, tmp_path: Path, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"), proxy=SMALL)
    await stage.start(consumers=0)
    await stage.counted("clearpane_proxy_spool_dropped_records_total", DROPPED_MIN, reason="space")
    await stage.member(intake=True).ready()
    await stage.recorded(200)
    dropped = await stage.all_spooled()
    await stage.shipped(dropped)  # the gap is stated as soon as there is room
    verdict = await stage.judged(dropped=dropped)
    bodies = int(await stage.proxy_metric("clearpane_proxy_spool_dropped_bodies_total", reason="space"))
    tell("F19", "nothing to deliver to, until a spool of 1 MiB is full", verdict, f"{bodies} bodies and {dropped} records dropped, counted")
    assert verdict.whole == verdict.calls
    assert (len(verdict.lost), verdict.recorded) == (dropped, verdict.calls - dropped)
    assert not verdict.doubled
    assert not verdict.findings
    assert verdict.contents.bare == bodies > 0
    assert set(verdict.contents.ends) == {"complete"}
    assert await stage.proxy_metric("clearpane_shipper_dropped_total", reason="space") == dropped >= DROPPED_MIN
