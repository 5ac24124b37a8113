"""What is compared: each target is one or more commands that serve 127.0.0.1:{port} in front of 127.0.0.1:{up}."""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import compiled
from bench.peers import install
from bench.peers.install import Unavailable
from clearpane import settings

ROOT = Path(__file__).resolve().parents[1]
PATH = "/v1/chat/completions"
KEY = "sk-bench-0123456789abcdef"
_PROXY = "{python} -m clearpane.cli proxy --workers 1 --default-upstream http://127.0.0.1:{up} --listen 127.0.0.1:{port}"
_PROXY += " --admin 127.0.0.1:{admin} --data {data}"
_CONSUMER = "{python} -m clearpane.cli consumer --intake http://127.0.0.1:{intake} --admin 127.0.0.1:{admin_2}"
_CONSUMER += " --lake {work}/lake --data {work}/consumer"
_LITELLM = "{home}/bin/python -c 'import litellm; litellm.run_server()' --config {config} --host 127.0.0.1 --port {port} --num_workers 1"
_LITELLM_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_MASTER_KEY": KEY,
    "DISABLE_ADMIN_UI": "True",
}


@dataclass(frozen=True, slots=True)
class Command:
    line: str
    serves: str = "port"  # the port that it is waited for


@dataclass(frozen=True, slots=True)
class Target:
    """`home` finds or installs the program, {home} in the commands; raises Unavailable. `compiled`: where it is ours, by a wheel."""

    name: str
    commands: tuple[Command, ...] = ()  # none: straight to the provider
    home: Callable[[], Path | None] = lambda: None
    config: str = ""  # a file beside the installer, filled in as {config}
    path: str = PATH
    model: str = "{}"  # how it spells a model's name
    headers: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    picks_port: bool = False  # listens where it likes, and writes the port to {work}/port
    scenarios: tuple[str, ...] = ()  # none named: all but the delivery
    compiled: bool = True

    def source(self) -> Path:
        """Where Clearpane's modules are."""
        return compiled.folder() if self.compiled else ROOT


def _nginx() -> Path:
    if found := shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin"):
        return Path(found)
    raise Unavailable("it is not on this machine (Debian: apt-get install nginx-light)")


def _loop(name: str) -> dict[str, str]:
    """The event loop by its setting, where there is one: asyncio is the only loop otherwise."""
    return {"CLEARPANE_LOOP": name} if "loop" in settings.fields() else {}


def _uvloop() -> None:
    if not _loop("uvloop"):
        raise Unavailable("this version has no setting `loop`")
    if importlib.util.find_spec("uvloop") is None:
        raise Unavailable("uvloop is not installed here")


def _peer(name: str, line: str, config: str = "", **more: object) -> Target:
    return Target(name, (Command(line),), partial(install.folder, name.partition("-")[0]), config, **more)  # type: ignore[arg-type]


DIRECT = Target("direct")
NGINX = Target("nginx", (Command("{home} -c {config}"),), _nginx, "nginx.conf.in")
CLEARPANE = Target("clearpane", (Command(f"{_PROXY} --spool-only"),), environment=_loop("asyncio"))
CLEARPANE_UVLOOP = Target("clearpane-uvloop", (Command(f"{_PROXY} --spool-only"),), _uvloop, environment=_loop("uvloop"))
INTERPRETED = Target("clearpane-interpreted", (Command(f"{_PROXY} --spool-only"),), environment=_loop("asyncio"), compiled=False)
DELIVERING = Target(
    "clearpane-with-delivery",
    (Command(_CONSUMER, "intake"), Command(f"{_PROXY} --intake http://127.0.0.1:{{intake}}")),
    environment=_loop("asyncio"),
    scenarios=("json_32", "delivery"),
)
DELIVERING_BY_KAFKA = Target(
    "clearpane-with-kafka",
    (
        Command("{python} {root}/deploy/services run kafka --in {work} --tied", "broker"),
        Command(f"{_CONSUMER} --kafka 127.0.0.1:{{broker}}", "intake"),
        Command(f"{_PROXY} --kafka 127.0.0.1:{{broker}} --intake http://127.0.0.1:{{intake}}"),
    ),
    install.kafka,
    "ports.json.in",
    environment=_loop("asyncio"),
)
PEERS = (
    # The program inside the wheel; the wheel's own command would only start it.
    _peer(
        "envoy",
        "{home}/lib/{lib}/site-packages/envoy/_bin/envoy -c {config} --concurrency 1 --disable-hot-restart --log-level error",
        "envoy.yaml.in",
    ),
    _peer("crabllm", "{home}/bin/crabllm serve --config {config}", "crabllm.toml.in", environment={"RUST_LOG": "error"}),
    _peer(
        "tensorzero",
        "{home}/bin/python {peers}/tensorzero_gateway.py {config} {work}/port",
        "tensorzero.toml.in",
        path="/openai/v1/chat/completions",
        model="tensorzero::model_name::{}",
        picks_port=True,
    ),
    _peer("litellm", _LITELLM, "litellm.yaml.in", environment=_LITELLM_ENVIRONMENT),
    _peer(
        "portkey",
        "node {home}/node_modules/@portkey-ai/gateway/build/start-server.js --port={port} --headless",
        headers=("x-portkey-provider: openai", "x-portkey-custom-host: http://127.0.0.1:{up}/v1"),
        environment={"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"},
    ),
)
OWN = (DIRECT, NGINX, CLEARPANE, CLEARPANE_UVLOOP, INTERPRETED, DELIVERING)
SHORT = (DIRECT, NGINX, CLEARPANE, DELIVERING)
# Only when asked for by name: LiteLLM without its own reading of requests and answers.
EXTRA = (_peer("litellm-passthrough", _LITELLM, "litellm.yaml.in", path="/raw" + PATH, environment=_LITELLM_ENVIRONMENT),)
TARGETS = {target.name: target for target in (*OWN, *PEERS, *EXTRA)}
PROVIDER = Target("provider", (Command("{build}/provider {port}"),))
