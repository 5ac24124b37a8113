"""F6: one of three brokers is frozen in mid-load, then another is killed and comes back."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Broker
from tests.e2e.system import free_port
from tests.faults.conftest import SetUp, Tell, make_topic

pytestmark = [pytest.mark.kafka, pytest.mark.s3, pytest.mark.timeout(300), pytest.mark.full]

FROZEN_S = 20.0
BROKERS = 3


@pytest.fixture
async def brokers(tmp_path: Path, services_environment: dict[str, str]) -> AsyncIterator[list[Broker]]:
    ports = [{"port": free_port(), "controller": free_port()} for _ in range(BROKERS)]
    voters = ",".join(f"{node}@127.0.0.1:{port['controller']}" for node, port in enumerate(ports, 1))
    found = []
    for node, port in enumerate(ports, 1):
        folder = tmp_path / f"broker-{node}"
        folder.mkdir()
        (folder / "ports.json").write_text(json.dumps(port))
        (folder / "cluster.json").write_text(json.dumps({"node": node, "voters": voters}))
        found.append(Broker(folder, services_environment))
    try:
        await asyncio.gather(*(broker.start() for broker in found))  # none answers before two are there
        yield found
    finally:
        for broker in found:
            broker.kill()


async def test_the_others_go_on(set_up: SetUp, s3_lake: str, brokers: list[Broker], dice: random.Random, tell: Tell) -> None:
    bootstrap = ",".join(broker.bootstrap for broker in brokers)
    stage = set_up(s3_lake, kafka=bootstrap, topic=await make_topic(bootstrap, replicas=BROKERS))
    await stage.start(consumers=2)
    await stage.called(300)
    frozen, killed = dice.sample(brokers, 2)
    frozen.pause()
    await asyncio.sleep(FROZEN_S)
    await stage.called(100)
    frozen.resume()
    await stage.called(300)
    killed.kill()
    await stage.called(300)
    await killed.start()
    await stage.called(300)
    verdict = (await stage.judged()).check()
    by_http, by_kafka = verdict.contents.by("h-"), verdict.contents.by("k-")
    tell("F6", f"one of three brokers frozen for {FROZEN_S:.0f} s, then one killed", verdict, f"{by_http} by HTTP, {by_kafka} by Kafka")
    assert by_kafka > 0
