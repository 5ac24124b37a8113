"""F4: no broker when everything starts; it comes up later."""

import pytest

from tests.conftest import Broker
from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]


async def test_records_go_by_http_and_then_by_kafka(set_up: SetUp, s3_lake: str, own_kafka: Broker, own_topic: str, tell: Tell) -> None:
    own_kafka.kill()
    stage = set_up(s3_lake, kafka=own_kafka.bootstrap, topic=own_topic)
    await stage.start()
    await stage.recorded(500)
    await own_kafka.start()
    await stage.logged("k-", 300)
    verdict = (await stage.judged()).check()
    by_http = verdict.contents.by("h-")
    tell("F4", "no broker at the start, then one", verdict, f"{by_http} by HTTP, {verdict.recorded - by_http} by Kafka")
    assert by_http >= 500
