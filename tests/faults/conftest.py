"""The stage of each fault, and the table of what each did."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.conftest import LEFT_OUT, PARTITIONS, SERVICES, Broker
from tests.e2e.system import free_port
from tests.faults.front import Front
from tests.faults.stage import Stage, Verdict
from tests.faults.wire import Wire

REPORT = "CLEARPANE_TEST_FAULTS"  # file that gets a line of JSON for each fault
SEED = "CLEARPANE_TEST_SEED"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: runs with --full only (`make faults`)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    long = [item for item in items if item.get_closest_marker("full")]
    if long:
        config.stash[LEFT_OUT].append(f"{len(long)} faults that take their time: `make faults` has them all")
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@dataclass(frozen=True)
class Line:
    """One row of the table in docs/reliability.md."""

    fault: str
    did: str
    calls: int
    recorded: int
    lost: int
    doubled: int
    seen: str
    seconds: float
    seed: int


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.stash[SERVICES].get(SEED, "1"))


@pytest.fixture
def dice(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def full(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--full"))


Tell = Callable[..., None]


@pytest.fixture
def tell(pytestconfig: pytest.Config, seed: int) -> Tell:
    """Writes a row: the fault, what was done, what came of it, what else was seen."""
    began = time.monotonic()

    def write(fault: str, did: str, verdict: Verdict, seen: str = "") -> None:
        line = Line(
            fault, did, verdict.calls, verdict.recorded, len(verdict.lost), len(verdict.doubled), seen, time.monotonic() - began, seed
        )
        print(f"\n{line}")
        if file := pytestconfig.stash[SERVICES].get(REPORT):
            with Path(file).open("a") as report:
                report.write(json.dumps(asdict(line)) + "\n")

    return write


@pytest.fixture
async def front(s3_environment: dict[str, str], seed: int) -> AsyncIterator[Front]:
    """Before the store."""
    found = Front(s3_environment["AWS_ENDPOINT_URL_S3"], s3_environment["AWS_SECRET_ACCESS_KEY"], seed)
    await found.start()
    yield found
    found.clear()
    await found.stop()


SetUp = Callable[..., Stage]


@pytest.fixture
async def set_up(tmp_path: Path) -> AsyncIterator[SetUp]:
    stages: list[Stage] = []

    def make(lake: str, **how: Any) -> Stage:
        stages.append(Stage(tmp_path, lake, **how))
        return stages[-1]

    yield make
    for stage in stages:
        await stage.quiet()
        await asyncio.to_thread(stage.stop)


async def make_topic(bootstrap: str, name: str = "calls", replicas: int = 1) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=PARTITIONS, replication_factor=replicas)])
    finally:
        await admin.close()
    return name


@pytest.fixture
async def own_topic(own_kafka: Broker) -> str:
    return await make_topic(own_kafka.bootstrap)


@pytest.fixture
async def wire(tmp_path: Path, services_environment: dict[str, str]) -> AsyncIterator[Wire]:
    """Before a broker of its own that names the wire as its address, so that every client goes through it; it has the topic `calls`."""
    folder, port = tmp_path / "kafka", free_port()
    found = Wire("127.0.0.1", port)
    await found.start()
    folder.mkdir()
    (folder / "ports.json").write_text(json.dumps({"port": port, "advertised": found.port}))
    broker = Broker(folder, services_environment)
    try:
        await broker.start()
        await make_topic(f"127.0.0.1:{found.port}")
        yield found
    finally:
        await found.stop()
        broker.kill()


class Inside:
    """Faults in processes that are given `environment`: see inside/sitecustomize.py."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "inside.json"
        self.environment = {"FAULTS_INSIDE": str(self._file), "PYTHONPATH": str(Path(__file__).parent / "inside")}
        self.tell()

    def tell(self, **faults: Any) -> None:
        """From now on these and no others."""
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps(faults))
        written.replace(self._file)

    def times(self, name: str) -> int:
        """How often this call met its fault."""
        counted = Path(f"{self._file}.{name}")
        return counted.stat().st_size if counted.exists() else 0


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)
