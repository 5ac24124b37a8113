"""F15: the PUT is done and its answer dropped; 409; 412; 403."""

import pytest

from tests.faults.conftest import SetUp, Tell
from tests.faults.front import Front

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(240)]


async def test_each_answer_leads_to_one_object(
    set_up: SetUp, s3_lake: str, front: Front, kafka_bootstrap: str, kafka_topic: str, tell: Tell, full: bool
) -> None:
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start(consumers=2 if full else 1, store={"AWS_ENDPOINT_URL_S3": front.url})
    front.add(name="answer dropped", drop=True, share=0.25)
    front.add(name="409", status=409, share=0.2)
    front.add(name="409 after the deed", lie=409, share=0.2)
    front.add(name="412 after the deed", lie=412, share=0.2)
    front.add(name="403", status=403, times=1)
    await stage.called(3000 if full else 300)
    front.clear()
    verdict = (await stage.judged()).check()
    found = sum([await member.metric("clearpane_consumer_answers_lost_total") for member in stage.members])
    seen = ", ".join(f"{name}: {count}" for name, count in sorted(front.counts.items()))
    tell("F15", "answers dropped after the deed, 409, 412, 403", verdict, f"{seen}; {found:.0f} own objects found")
    assert found >= 1
    assert "give its credentials the right" in stage.log()
