"""What is compared: each target is one or more commands that serve 127.0.0.1:{port} in front of 127.0.0.1:{up}."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / "build"
START_S, STOP_S = 60.0, 15.0
PATH = "/v1/chat/completions"

_PROXY = "{python} -m clearpane.cli proxy --workers 1 --default-upstream http://127.0.0.1:{up} --listen 127.0.0.1:{port}"
_PROXY += " --admin 127.0.0.1:{admin} --data {work}/proxy"
_CONSUMER = "{python} -m clearpane.cli consumer --intake http://127.0.0.1:{intake} --admin 127.0.0.1:{admin_2}"
_CONSUMER += " --lake {work}/lake --data {work}/consumer"


@dataclass(frozen=True, slots=True)
class Command:
    line: str
    serves: str  # the port that it is waited for


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    commands: tuple[Command, ...] = ()  # none: straight to the provider
    delivers: bool = False


TARGETS = (
    Target("direct"),
    Target("nginx", (Command("{nginx} -c {work}/nginx.conf", "port"),)),
    Target("clearpane", (Command(f"{_PROXY} --spool-only", "port"),)),
    Target(
        "clearpane-with-delivery",
        (Command(_CONSUMER, "intake"), Command(f"{_PROXY} --intake http://127.0.0.1:{{intake}}", "port")),
        delivers=True,
    ),
)
PROVIDER = Target("provider", (Command("{build}/provider {port}", "port"),))


class NotStarted(Exception):
    """A target's command ended, or did not serve in time; the message holds the end of its output."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started target. `roots` are the processes we made; their children belong to them."""

    url: str
    port: int
    roots: set[int]
    work: Path


@contextmanager
def running(target: Target, core: int, up: int = 0) -> Iterator[Running]:
    """The target on one core, with a fresh folder of its own; gone with all its files at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        fill = _fill(Path(folder), up)
        (Path(folder) / "nginx.conf").write_text(_filled((HERE / "nginx.conf.in").read_text(), fill))
        roots = {stack.enter_context(_process(_filled(each.line, fill), fill[each.serves], core, folder)) for each in target.commands}
        port = int(fill["port"]) if target.commands else up
        url = f"http://127.0.0.1:{port}{PATH}"
        _first_call(target, url)
        yield Running(url, port, roots, Path(folder))


def nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")


def _fill(folder: Path, up: int) -> dict[str, str]:
    ports = {name: str(free_port()) for name in ("port", "admin", "intake", "admin_2")}
    paths = {"work": str(folder), "build": str(BUILD), "python": sys.executable, "nginx": nginx() or "nginx"}
    return {**ports, **paths, "up": str(up)}


def _filled(text: str, fill: dict[str, str]) -> str:
    for key, value in fill.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _process(line: str, port: str, core: int, folder: str) -> Iterator[int]:
    log = Path(folder) / f"{port}.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *shlex.split(line)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        _wait_for(process, int(port), log)
        yield process.pid
    finally:
        _stop(process)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise NotStarted(log.read_text(errors="replace")[-2000:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL to the group that we made."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)


def _first_call(target: Target, url: str) -> None:
    body = b'{"model":"fake","messages":[{"role":"user","content":"one"}]}'
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json", "Authorization": "Bearer sk-bench"})
    try:
        urllib.request.urlopen(request, timeout=10).read()
    except OSError as error:
        raise NotStarted(f"{target.name}: the first call failed: {error}") from error
