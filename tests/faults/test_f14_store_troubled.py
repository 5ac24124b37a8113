"""F14: a store that answers 500, 503 and SlowDown, takes its time, or does not answer at all."""

from pathlib import Path

import pytest

from tests.faults.conftest import SetUp, Tell
from tests.faults.front import Front

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]

RSS_KIB_MAX = 500 << 10


def rss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


async def test_a_troubled_store_holds_back_and_loses_nothing(
    set_up: SetUp, s3_lake: str, front: Front, kafka_bootstrap: str, kafka_topic: str, tell: Tell
) -> None:
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start(consumers=2, store={"AWS_ENDPOINT_URL_S3": front.url})
    await stage.recorded(100)  # both are members by now
    for status in (500, 503):
        for folder in ("calls", "index", "heads"):
            front.add(name=str(status), method="", folder=folder, status=status, share=0.15)
    for folder in ("calls", "index", "heads"):
        front.add(name="2 s late", method="", folder=folder, delay_s=2.0, share=0.2)
    front.add(name="never answered", delay_s=60.0, times=2)  # longer than a request's own deadline
    await stage.called(3000)
    restarts = sum([await member.metric("clearpane_consumer_kafka_restarts_total") for member in stage.members])
    front.clear()
    verdict = (await stage.judged()).check()
    highest = max(rss_kib(member.process.pid) for member in stage.members)
    seen = ", ".join(f"{name}: {count}" for name, count in sorted(front.counts.items()))
    tell("F14", "store answers 500 and 503 to 30 %, others 2 s late, two PUTs never", verdict, f"{seen}; highest RSS {highest >> 10} MiB")
    assert restarts == 0, "membership was lost"
    assert highest < RSS_KIB_MAX
