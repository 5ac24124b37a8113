"""F3: SIGKILL of the broker, which comes back empty: the partitions stop and say so, and go on under a new incarnation."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import PARTITIONS, Broker
from tests.faults.conftest import SetUp, Tell, make_topic

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]


async def test_nothing_of_the_new_topic_is_skipped(
    set_up: SetUp, s3_lake: str, own_kafka: Broker, own_topic: str, tmp_path: Path, tell: Tell
) -> None:
    stage = set_up(s3_lake, kafka=own_kafka.bootstrap, topic=own_topic)
    await stage.start()
    await stage.called(400)
    await stage.quiet()
    await stage.all_recorded()
    own_kafka.kill()
    shutil.rmtree(tmp_path / "kafka" / "data")
    await own_kafka.start()
    await make_topic(own_kafka.bootstrap, own_topic)
    stage.go_on()
    await stage.said("raise `incarnation`", PARTITIONS)
    stage.members[0].stop()
    later = stage.member(intake=True, incarnation=1)
    await later.ready()
    await stage.called(200)
    verdict = (await stage.judged()).check()
    by_incarnation = {log.rsplit("-", 2)[1] for log in verdict.contents.logs if log.startswith("k-")}
    tell("F3", "broker killed, back with an empty disk", verdict, f"{PARTITIONS} partitions stopped and said why; incarnation raised")
    assert by_incarnation == {"0", "1"}
