"""F8: error codes that a broker of one node can be made to give: INVALID_TIMESTAMP (32) and MESSAGE_TOO_LARGE (10)."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.conftest import Broker
from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]


async def configure(bootstrap: str, topic: str, **values: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        stated = {name.replace("_", "."): value for name, value in values.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, stated)])
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("code", "wrong"),
    [("INVALID_TIMESTAMP", {"message_timestamp_before_max_ms": "0"}), ("MESSAGE_TOO_LARGE", {"max_message_bytes": "1000"})],
)
async def test_a_refusal_costs_nothing(
    code: str, wrong: dict[str, str], set_up: SetUp, s3_lake: str, own_kafka: Broker, own_topic: str, tell: Tell
) -> None:
    stage = set_up(s3_lake, kafka=own_kafka.bootstrap, topic=own_topic)
    await stage.start()
    await stage.logged("k-", 100)
    await configure(own_kafka.bootstrap, own_topic, **wrong)
    await stage.logged("h-", 100)
    await configure(own_kafka.bootstrap, own_topic)
    await stage.logged("k-", 100)
    verdict = (await stage.judged()).check()
    by_http = verdict.contents.by("h-")
    tell("F8", f"broker answers {code}", verdict, f"{by_http} by HTTP, {verdict.recorded - by_http} by Kafka")
