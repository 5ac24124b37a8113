"""F9: records larger than what Kafka takes, beside small ones."""

import pytest

from clearpane.store import Store
from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]

LARGE = 40


async def test_they_go_by_http_with_all_their_bytes(
    set_up: SetUp, s3_lake: str, kafka_bootstrap: str, kafka_topic: str, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARPANE_KAFKA_RECORD_BYTES_MAX", "65536")
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start()
    bodies = [await stage.large_call(number, 50_000 + number * 20_000) for number in range(LARGE)]
    verdict = (await stage.judged()).check()
    assert Store.open(s3_lake)
    by_http = verdict.contents.by("h-")
    tell("F9", f"{LARGE} calls of 50 to 830 KB among small ones, Kafka takes 64 KiB", verdict, f"{by_http} by HTTP")
    assert {f"large-{number}": body for number, body in enumerate(bodies)} == verdict.contents.large
    assert by_http >= LARGE - 2
