"""Real services for the tests that need them: `make test` starts them and says where they are.

A test that uses `kafka_bootstrap`, `kafka_topic` or `own_kafka` bears the mark `kafka`, one that uses `s3_lake` or
`s3_environment` the mark `s3`. Where the service is not there they are left out, in one line; with CI=true that is an error.
"""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import hypothesis
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

ROOT = Path(__file__).parents[1]
PARTITIONS = 4
BROKER_READY_TIMEOUT_S = 45.0
NEEDS = {
    "kafka": ("CLEARPANE_TEST_KAFKA", {"kafka_bootstrap", "kafka_topic", "own_kafka"}),
    "s3": ("CLEARPANE_TEST_S3", {"s3_lake", "s3_environment"}),
}
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL_S3", "AWS_ALLOW_HTTP")
SERVICES = pytest.StashKey[dict[str, str]]()
LEFT_OUT = pytest.StashKey[list[str]]()

hypothesis.settings.register_profile("clearpane", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis.settings.load_profile("clearpane")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="faults in their full number: ten kills where the short form has three")
    parser.addoption("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the event loop that the tests in tests/e2e run on")
    parser.addoption(
        "--compiled", action="store_true", help="the path of a call has to be compiled, else interpreted: `make test-compiled`"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The variables move out of the environment: what a test starts must see its own settings only."""
    mine = [name for name in os.environ if name.startswith(("CLEARPANE_", "AWS_"))]
    config.stash[SERVICES] = {name: os.environ.pop(name) for name in mine}
    config.stash[LEFT_OUT] = []


def pytest_report_header(config: pytest.Config) -> list[str]:
    found = config.stash[SERVICES]
    where = {"kafka": found.get("CLEARPANE_TEST_KAFKA"), "s3": found.get("AWS_ENDPOINT_URL_S3")}
    return [f"real {name}: {address}" for name, address in where.items() if address]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Marks come first, then pytest's own selection (`-m`), and what is left without its service is left out."""
    for mark, (_, fixtures) in NEEDS.items():
        for item in items:
            if fixtures & set(getattr(item, "fixturenames", ())):
                item.add_marker(mark)
    yield
    for mark, (variable, _) in NEEDS.items():
        if variable not in config.stash[SERVICES]:
            leave_out(config, items, mark, variable)


def leave_out(config: pytest.Config, items: list[pytest.Item], mark: str, variable: str) -> None:
    needy = [item for item in items if item.get_closest_marker(mark)]
    if not needy:
        return
    reason = f"{len(needy)} tests marked `{mark}`: {variable} is not set (`make test` starts the services)"
    if os.environ.get("CI") == "true":
        raise pytest.UsageError(f"CI must not leave out {reason}")
    config.stash[LEFT_OUT].append(reason)
    config.hook.pytest_deselected(items=needy)
    items[:] = [item for item in items if item not in needy]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for reason in config.stash[LEFT_OUT]:
        terminalreporter.write_line(f"Left out: {reason}", yellow=True)


@pytest.fixture(scope="session")
def kafka_bootstrap(pytestconfig: pytest.Config) -> str:
    """HOST:PORT of a real broker that all tests share; one that stops it uses `own_kafka`."""
    return pytestconfig.stash[SERVICES]["CLEARPANE_TEST_KAFKA"]


@pytest.fixture
async def kafka_topic(kafka_bootstrap: str) -> AsyncIterator[str]:
    """The name of a fresh topic with four partitions."""
    name = f"test-{uuid.uuid4().hex[:16]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=PARTITIONS, replication_factor=1)])
        yield name
        await admin.delete_topics([name])
    finally:
        await admin.close()


class Broker:
    """A real broker of one test's own, on one port and one data folder for life: kill it, freeze it, bring it back."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{json.loads((self._folder / 'ports.json').read_text())['port']}"

    async def start(self) -> None:
        """Returns when the broker answers."""
        self._folder.mkdir(exist_ok=True)
        argv = [sys.executable, str(ROOT / "deploy" / "services"), "run", "kafka", "--in", str(self._folder), "--tied"]
        with (self._folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        async with asyncio.timeout(BROKER_READY_TIMEOUT_S):
            while not await self._answers():
                assert self._process.poll() is None, (self._folder / "kafka.log").read_text()[-2000:]
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, as a machine that dies."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: the port stays open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _answers(self) -> bool:
        """Whether an ApiVersions request (version 0, correlation id 7) is answered."""
        try:
            host, port = self.bootstrap.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
        except (OSError, KeyError):  # not running yet, or its port not drawn yet
            return False
        try:
            writer.write(struct.pack(">ihhih", 10, 18, 0, 7, -1))
            return (await asyncio.wait_for(reader.readexactly(8), 2))[4:] == struct.pack(">i", 7)
        except (OSError, EOFError, TimeoutError):
            return False
        finally:
            writer.close()


@pytest.fixture(scope="session")
def services_environment(pytestconfig: pytest.Config) -> dict[str, str]:
    """For `python deploy/services`: it alone knows CLEARPANE_CACHE."""
    cache = pytestconfig.stash[SERVICES].get("CLEARPANE_CACHE")
    return dict(os.environ) | ({"CLEARPANE_CACHE": cache} if cache else {})


@pytest.fixture
async def own_kafka(tmp_path: Path, services_environment: dict[str, str]) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path / "kafka", services_environment)
    try:
        await broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def s3_environment(pytestconfig: pytest.Config) -> dict[str, str]:
    """The `AWS_*` variables of a real S3 server."""
    return {name: pytestconfig.stash[SERVICES][name] for name in AWS}


@pytest.fixture
def s3_lake(pytestconfig: pytest.Config, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """s3://bucket/prefix, empty and this test's own; the environment says how to reach it."""
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return f"{pytestconfig.stash[SERVICES]['CLEARPANE_TEST_S3']}/{uuid.uuid4().hex}"
