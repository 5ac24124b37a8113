"""F17: a store that ignores `If-None-Match` is refused at start, in words."""

import pytest

from clearpane.store import Store
from tests.faults.conftest import SetUp, Tell
from tests.faults.front import Front
from tests.faults.stage import judge

pytestmark = [pytest.mark.s3, pytest.mark.timeout(60)]


async def test_the_consumer_does_not_start(set_up: SetUp, s3_lake: str, front: Front, tell: Tell) -> None:
    stage = set_up(s3_lake)
    front.add(name="condition stripped", folder="probe", strip="if-none-match")
    member = stage.member(intake=True, store={"AWS_ENDPOINT_URL_S3": front.url})
    await member.died()
    assert member.process.returncode == 1
    said = member.log.read_text()
    assert "this store ignores `If-None-Match: *`" in said
    assert "use one that honours it" in said
    assert "Traceback" not in said
    assert await Store.open(s3_lake).list("") == []
    seen = f"{front.counts['condition stripped']} conditions stripped; exit code 1: {said.strip().splitlines()[-1]}"
    tell("F17", "store ignores If-None-Match", await judge({}, s3_lake), seen)
