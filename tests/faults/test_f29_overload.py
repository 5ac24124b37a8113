"""F29: more calls than the log path takes, for a time: the way to the intake is a trickle."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.conftest import SetUp, Tell
from tests.faults.wire import Wire

pytestmark = [pytest.mark.timeout(300), pytest.mark.full]

SMALL = {"CLEARPANE_SPOOL_BYTES_MAX": "1MiB", "CLEARPANE_SPOOL_SEGMENT_BYTES": "64KiB", "CLEARPANE_POST_BYTES_MAX": "64KiB"}
TRICKLE_BYTES_PER_S = 4_000
DROPPED_MIN = 300


async def test_calls_are_as_ever_and_what_is_dropped_is_counted(set_up: SetUp, tmp_path: Path, tell: Tell) -> None:
    stage = set_up(str(tmp_path / "lake"), proxy=SMALL)
    wire = Wire("127.0.0.1", stage.intake_port)
    await wire.start()
    try:
        wire.up.bytes_per_s, wire.up.slice_bytes = TRICKLE_BYTES_PER_S, 1024
        await stage.start(intake=f"http://127.0.0.1:{wire.port}")
        await stage.counted("clearpane_proxy_spool_dropped_records_total", DROPPED_MIN, reason="space")
        wire.up.bytes_per_s = None
        await stage.recorded(200)
        dropped = await stage.all_spooled()
        await stage.shipped(dropped)
        verdict = await stage.judged(dropped=dropped)
        bodies = int(await stage.proxy_metric("clearpane_proxy_spool_dropped_bodies_total"))
        stated = int(await stage.proxy_metric("clearpane_shipper_dropped_total", reason="space"))
    finally:
        await stage.quiet()
        await asyncio.to_thread(stage.stop)
        await wire.stop()
    did = f"{TRICKLE_BYTES_PER_S} bytes/s to the intake and a spool of 1 MiB, under full load"
    tell("F29", did, verdict, f"{bodies} bodies and {dropped} records dropped, counted")
    assert verdict.whole == verdict.calls
    assert (len(verdict.lost), verdict.recorded) == (dropped, verdict.calls - dropped)
    assert (verdict.doubled, verdict.findings) == ([], [])
    assert verdict.contents.bare == bodies > 0
    assert stated == dropped >= DROPPED_MIN
