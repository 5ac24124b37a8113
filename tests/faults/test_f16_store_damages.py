"""F16: connections cut in the middle of a body, a flipped bit, a signature by a clock that is an hour behind."""

import gzip

import pytest

from clearpane.store import Store
from tests.faults.conftest import SetUp, Tell
from tests.faults.front import Front

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(240), pytest.mark.full]


async def test_no_object_is_partial(set_up: SetUp, s3_lake: str, front: Front, kafka_bootstrap: str, kafka_topic: str, tell: Tell) -> None:
    stage = set_up(s3_lake, kafka=kafka_bootstrap, topic=kafka_topic)
    await stage.start(store={"AWS_ENDPOINT_URL_S3": front.url})
    for folder in ("calls", "index", "heads"):
        front.add(name="request cut", folder=folder, cut_request=True, share=0.15)
        front.add(name="bit flipped", folder=folder, flip=True, share=0.1)
    front.add(name="answer cut", method="GET", folder="heads", cut_answer=True, times=3)
    front.add(name="an hour behind", skew_s=3600, times=2)
    await stage.called(700)
    await stage.member().ready()  # reads where the chains end
    await stage.called(800)
    front.clear()
    verdict = (await stage.judged()).check()
    store = Store.open(s3_lake)
    for entry in await store.list("calls/"):
        gzip.decompress(await store.get(entry.key))
    seen = ", ".join(f"{name}: {count}" for name, count in sorted(front.counts.items()))
    tell("F16", "bodies cut, a bit flipped, a clock an hour behind", verdict, seen)
    assert {"request cut", "answer cut", "bit flipped", "an hour behind"} <= set(front.counts)
