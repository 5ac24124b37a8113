"""Settings: one TOML file, `CLEARPANE_*` variables and flags become one typed value; all problems at once.

Order, the later wins: defaults, the TOML file (`--config`, `CLEARPANE_CONFIG`, or ./clearpane.toml if it
exists), variables, flags. A field is a setting: its name is the TOML key, `CLEARPANE_<NAME>` the variable.
"""

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearpane import forms
from clearpane.forms import Malformed

DEFAULT_FILE = "clearpane.toml"
# The project's own tests and service scripts read these; a shell that has them may still run the command.
_OF_TESTS = re.compile(r"CLEARPANE_(CACHE|TEST_[A-Z0-9_]+)")
# A Kubernetes service called `clearpane...` puts these into every pod of its namespace.
_OF_KUBERNETES = re.compile(
    r"CLEARPANE(_[A-Z0-9]+)*?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class SettingsError(Exception):
    """Every problem found, one line each: where it stands, what is wrong, what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _setting(default: Any, form: Callable[[Any], Any], meaning: str, **extra: Any) -> Any:
    metadata = {"form": form, "meaning": meaning, **extra}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of all parts; each part reads its own. Units stand last in a name."""

    # Where things are
    listen: str = _setting("127.0.0.1:8080", forms.host_port, "the proxy's address", flag=True)
    admin: str | None = _setting(
        None, forms.host_port, "address of health, readiness and /metrics; 127.0.0.1:9464 (proxy, up) or :9465 (consumer)", flag=True
    )
    data: Path = _setting(Path("clearpane-data"), forms.folder, "folder of spool and state", flag=True)
    lake: str | None = _setting(None, forms.lake, "folder or s3://bucket/prefix that holds the records", flag=True)

    # Where calls go
    default_upstream: str = _setting("https://api.openai.com", forms.upstream_url, "where /v1/... goes", flag=True)
    upstream: dict[str, str] = _setting({}, forms.upstreams, "NAME=URL: where /NAME/... goes; adds to the built-in names", flag=True)

    # How records travel
    kafka: str | None = _setting(None, forms.brokers, "brokers, HOST:PORT[,HOST:PORT]", flag=True)
    topic: str = _setting("clearpane.calls", forms.topic, "Kafka topic of the envelopes", flag=True)
    intake: str | None = _setting(
        None, forms.intake_url, "the consumer's HTTP intake (proxy: where to post; consumer: where to listen)", flag=True
    )
    intake_secret: str | None = _setting(
        None, forms.secret, "shared key that signs POSTs to the intake; needed when it is not on loopback", secret=True
    )
    spool_only: bool = _setting(False, forms.flag, "no delivery: records stay in the spool", flag=True)
    loop: str = _setting("asyncio", forms.choice("asyncio", "uvloop"), "event loop of the workers; uvloop is an extra", flag=True)
    workers: int = _setting(1, forms.integer(1, 256), "worker processes on the proxy's port", flag=True)
    flush_seconds: float = _setting(
        1.0, forms.number(0.01, 3600), "how long the shipper (POST) and the consumer (object) collect before they write", flag=True
    )

    # Bounds of a call
    capture_bytes_max: int = _setting(8 << 20, forms.size(0), "bytes of a body kept per side; the rest is counted and hashed only")
    capture_memory_bytes_max: int = _setting(256 << 20, forms.size(1 << 20), "captured bytes held by all open calls of a worker")
    request_bytes_max: int = _setting(4 << 30, forms.size(1 << 10), "largest request body that is forwarded")
    head_bytes_max: int = _setting(256 << 10, forms.size(4 << 10), "largest head of a request")
    header_bytes_max: int = _setting(64 << 10, forms.size(1 << 10), "largest header line, both sides")
    headers_max: int = _setting(256, forms.integer(16, 10_000), "most header lines, both sides")
    connections_max: int = _setting(10_000, forms.integer(1, 1_000_000), "open client connections of a worker; above it 503")
    connect_timeout_s: float = _setting(10.0, forms.number(0.1, 600), "deadline of a connect to an upstream, TLS included")
    read_timeout_s: float = _setting(600.0, forms.number(1, 86_400), "longest silence of an upstream, before and in an answer")
    write_timeout_s: float = _setting(300.0, forms.number(1, 86_400), "longest time a client may take no byte of its answer")
    request_timeout_s: float = _setting(60.0, forms.number(1, 86_400), "longest silence of a client in its request body")
    request_bytes_per_s_min: int = _setting(
        100, forms.integer(0, 1_000_000), "least speed of a request body that takes longer than request_timeout_s"
    )
    head_timeout_s: float = _setting(30.0, forms.number(1, 3600), "longest time for the head of a request to arrive")
    websocket_idle_s: float = _setting(3600.0, forms.number(1, 86_400), "longest silence of a WebSocket, both ways")
    keepalive_timeout_s: float = _setting(75.0, forms.number(1, 3600), "idle time after which a client's connection is closed")
    upstream_idle_s: float = _setting(10.0, forms.number(0, 600), "idle time after which a pooled upstream connection is closed")
    upstream_idle_max: int = _setting(512, forms.integer(0, 100_000), "idle connections kept per upstream")
    grace_s: float = _setting(30.0, forms.number(0, 3600), "time that open calls have to finish when the proxy stops")
    client_gone: str = _setting(
        "cancel", forms.choice("cancel", "drain"), "when the client leaves: `cancel` the upstream, or `drain` it so that usage stays exact"
    )
    drain_s: float = _setting(60.0, forms.number(0.1, 3600), "longest drain after the client left")

    # What is changed on request only
    add_traceparent: bool = _setting(False, forms.flag, "add `traceparent` upstream when the caller sent none")
    add_request_id: bool = _setting(False, forms.flag, "add `x-request-id` upstream when the caller sent none")

    include_usage: tuple[str, ...] = _setting(
        (), forms.upstream_names, "upstreams whose streamed chats are asked for their usage; the caller does not see it"
    )

    # Spool
    spool_bytes_max: int = _setting(
        8 << 30, forms.size(1 << 20), "bytes on disk per worker; from 80 % on bodies are dropped, at 100 % records"
    )
    spool_segment_bytes: int = _setting(64 << 20, forms.size(1 << 16), "size at which a new segment begins")
    spool_queue_bytes_max: int = _setting(64 << 20, forms.size(1 << 20), "bytes that may wait for the recorder, and in it for the disk")

    # Kafka
    kafka_deadline_s: float = _setting(5.0, forms.number(0.5, 120), "time Kafka has to acknowledge before a record counts as in doubt")
    kafka_probe_s: float = _setting(1.0, forms.number(0.1, 300), "pause between tries while Kafka is unavailable")
    kafka_record_bytes_max: int = _setting(8 << 20, forms.size(1 << 10), "largest message; larger ones go by HTTP")
    kafka_security: str = _setting(
        "PLAINTEXT", forms.choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"), "security protocol of the brokers"
    )
    kafka_sasl: str = _setting("PLAIN", forms.choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "SASL mechanism")
    kafka_username: str | None = _setting(None, forms.text, "SASL user")
    kafka_password: str | None = _setting(None, forms.secret, "SASL password", secret=True)
    kafka_ca_file: Path | None = _setting(None, forms.folder, "CA certificates of the brokers, PEM")
    kafka_group: str = _setting("clearpane", forms.text, "consumer group")
    incarnation: int = _setting(0, forms.integer(0, 1_000_000), "raise it when the topic was deleted and made again")

    # Batches
    post_bytes_max: int = _setting(8 << 20, forms.size(1 << 16), "largest POST to the intake, unless one record is larger")
    post_timeout_s: float = _setting(60.0, forms.number(1, 600), "deadline of one POST, the consumer's write to the lake included")
    object_bytes_max: int = _setting(32 << 20, forms.size(1 << 16), "bytes of envelopes after which an object is written")
    object_records_max: int = _setting(5000, forms.integer(1, 1_000_000), "records after which an object is written")

    # Money
    price_overlay: Path | None = _setting(
        None, forms.folder, "TOML file with prices of your own, which go before the book's: docs/money.md"
    )

    # Secrets and logs
    key_pepper: str | None = _setting(
        None, forms.secret, "makes key fingerprints comparable across hosts; else each data folder makes its own", secret=True
    )
    log_level: str = _setting("info", forms.choice("debug", "info", "warning", "error"), "how much is logged")


def fields() -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(Settings)}


def load(flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Raises SettingsError with every problem of every source."""
    problems: list[str] = []
    values: dict[str, Any] = {}
    path = file or (Path(environ["CLEARPANE_CONFIG"]) if environ.get("CLEARPANE_CONFIG") else None)
    sources = [
        _from_file(path, problems),
        _from_environment(environ, problems),
        {name: (f"--{name.replace('_', '-')}", value) for name, value in flags.items() if value is not None},
    ]
    known = fields()
    for source in sources:
        for name, (where, raw) in source.items():
            try:
                parsed = known[name].metadata["form"](raw)
            except Malformed as error:
                shown = "(not shown)" if known[name].metadata.get("secret") else repr(raw)
                problems.append(f"{where}: {shown}: {error}")
                continue
            values[name] = {**values.get(name, {}), **parsed} if isinstance(parsed, dict) else parsed
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def _from_file(path: Path | None, problems: list[str]) -> dict[str, tuple[str, Any]]:
    if path is None:
        path = Path(DEFAULT_FILE)
        if not path.exists():
            return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{path}: cannot be read: {error}")
        return {}
    known = fields()
    problems.extend(f"{path}: {name}: no such setting; `clearpane config` lists them" for name in table if name not in known)
    return {name: (f"{path}: {name}", value) for name, value in table.items() if name in known}


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, tuple[str, Any]]:
    known = fields()
    found: dict[str, tuple[str, Any]] = {}
    for variable, value in environ.items():
        if not variable.startswith("CLEARPANE_") or variable == "CLEARPANE_CONFIG":
            continue
        if _OF_KUBERNETES.fullmatch(variable) or _OF_TESTS.fullmatch(variable):
            continue
        name = variable.removeprefix("CLEARPANE_").lower()
        if name in known:
            found[name] = (variable, value)
        else:
            problems.append(f"{variable}: no such setting; `clearpane config` lists them")
    return found


def environment() -> Mapping[str, str]:
    """The process's own, as a value that can be handed on."""
    return dict(os.environ)
