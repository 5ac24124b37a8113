"""F2: SIGKILL of a consumer before its PUT, after it, before the head, after the commit."""

import pytest

from tests.faults.conftest import SetUp, Tell

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(240)]

PLACES = [
    "after:calls:3",
    *(
        pytest.param(place, marks=pytest.mark.full)
        for place in (
            "before:calls:1",
            "before:calls:4",
            "after:calls:1",
            "after:index:3",
            "before:heads:3",
            "after:heads:3",
            "after:commit:3",
        )
    ),
]


@pytest.mark.parametrize("place", PLACES)
async def test_a_consumer_dies_at_a_named_place(
    place: str, set_up: SetUp, s3_lake: str, kafka_bootstrap: str, kafka_topic: str, tell: Tell
) -> None:
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start(consumers=1, die=place)
    await stage.members[0].died()
    next_one = stage.member(intake=True)
    await next_one.ready()
    await stage.recorded(30)
    verdict = (await stage.judged()).check()
    adopted = await next_one.metric("clearpane_consumer_objects_adopted_total")
    tell("F2", f"SIGKILL of the consumer {place.replace(':', ' ')}", verdict, f"{adopted:.0f} objects adopted")
    if place == "after:calls:3":
        assert adopted >= 1
