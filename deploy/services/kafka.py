"""Apache Kafka from its Maven artifacts: a node that is broker and controller (KRaft), alone unless its folder says otherwise.

Of several nodes each has a folder with `cluster.json`: {"node": 2, "voters": "1@HOST:PORT,2@HOST:PORT,3@HOST:PORT"}; the
ports in `ports.json` are then drawn beforehand.
"""

import base64
import json
import re
import shutil
import socket
import struct
import uuid
from pathlib import Path
from typing import Any

import cache
import service
import toolchain

VERSION = "4.1.0"
LOG4J = "2.24.3"
ARTIFACTS = (
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    f"org.apache.kafka:kafka-tools:{VERSION}",
    f"org.apache.logging.log4j:log4j-core:{LOG4J}",
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J}",
)
CLUSTER_ID = "Q2xlYXJwYW5lVGVzdDAwMQ"  # 16 bytes, base64
HEAP = "-Xmx512m"

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>clearpane</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>{}</dependencies>
</project>
"""

PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{broker},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{advertised}
controller.listener.names=CONTROLLER
log.dirs={data}
num.partitions=4
offsets.topic.replication.factor={replicas}
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

LOG4J_PROPERTIES = """\
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %c: %m%n
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
"""


def fetch() -> Path:
    """A folder with libs/*.jar, log4j2.properties and formatted/, an empty storage folder to copy."""
    return cache.entry(f"kafka-{VERSION}", _build)


def _build(folder: Path) -> None:
    coordinates = [artifact.split(":") for artifact in ARTIFACTS]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in coordinates
    )
    (folder / "pom.xml").write_text(POM.format(dependencies))
    toolchain.run(toolchain.maven(), "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs", cwd=folder)
    (folder / "log4j2.properties").write_text(LOG4J_PROPERTIES)
    properties = folder / "format.properties"
    properties.write_text(_properties(folder, folder / "formatted", "127.0.0.1:9092", "127.0.0.1:9092", "127.0.0.1:9093"))
    format_storage = ("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", properties)
    toolchain.run(toolchain.java(), "-cp", f"{folder}/libs/*", *format_storage)


def command(folder: Path) -> tuple[list[str], dict[str, str]]:
    home = fetch()
    data = folder / "data"
    if not data.exists():
        shutil.copytree(home / "formatted", data)
        _take_number(data / "meta.properties", _cluster(folder)["node"])
    properties = folder / "server.properties"
    broker = service.address(folder)
    advertised = service.stated(folder, "advertised") or broker  # what stands between a client and the broker
    properties.write_text(_properties(folder, data, broker, advertised, service.address(folder, "controller")))
    options = [HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={home}/log4j2.properties"]
    return [str(toolchain.java()), *options, "-cp", f"{home}/libs/*", "kafka.Kafka", str(properties)], {}


def _cluster(folder: Path) -> dict[str, Any]:
    file = folder / "cluster.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"node": 1}
    return found


def _properties(folder: Path, data: Path, broker: str, advertised: str, controller: str) -> str:
    cluster = _cluster(folder)
    voters = cluster.get("voters", f"1@{controller}")
    replicas = voters.count("@")
    return PROPERTIES.format(
        node=cluster["node"], voters=voters, replicas=replicas, in_sync=replicas // 2 + 1,
        broker=broker, advertised=advertised, controller=controller, data=data,
    )  # fmt: skip


def _take_number(meta: Path, node: int) -> None:
    """A copy of the formatted folder becomes another node's."""
    own = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
    text = re.sub(r"^node\.id=.*$", f"node.id={node}", meta.read_text(), flags=re.MULTILINE)
    meta.write_text(re.sub(r"^directory\.id=.*$", f"directory.id={own}", text, flags=re.MULTILINE))


def answers(folder: Path) -> bool:
    """Whether the broker answers an ApiVersions request (version 0, correlation id 7)."""
    host, port = service.address(folder).split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            connection.sendall(struct.pack(">ihhih", 10, 18, 0, 7, -1))
            return connection.recv(8)[4:] == struct.pack(">i", 7)
    except OSError:
        return False


SERVICE = service.Service("kafka", f"Apache Kafka {VERSION}", fetch, command, answers)
