"""Targets as running processes: started on one core in a folder of their own, gone with all their files at the end."""

import os
import shlex
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

from bench.targets import KEY, Target
from tests.e2e.system import free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / "build"
DOCUMENT = ROOT / "docs" / "performance.md"
START_S, STOP_S = 120.0, 15.0
FIRST_CALL_S = 30.0


class NotStarted(Exception):
    """A target's command ended, or did not serve in time; the message holds the end of its output."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started target. `roots` are the processes we made; their children belong to them."""

    target: Target
    url: str
    port: int
    roots: set[int]
    fill: dict[str, str]

    @property
    def work(self) -> Path:
        return Path(self.fill["work"])

    def load_arguments(self, model: str) -> list[str]:
        headers = [word for header in self.target.headers for word in ("-H", _filled(header, self.fill))]
        return ["-u", self.url, "-m", self.target.model.format(model), *headers]


@contextmanager
def running(target: Target, core: int, up: int = 0, data: Path | None = None) -> Iterator[Running]:
    """The target on one core; `data` is Clearpane's folder, else a new one. Raises NotStarted, Unavailable."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        fill = _fill(target, Path(folder), up, data)
        roots = {stack.enter_context(_process(target, each.line, each.serves, fill, core)) for each in target.commands}
        port = int(fill["port"]) if target.commands else up
        url = f"http://127.0.0.1:{port}{target.path}"
        started = Running(target, url, port, roots, fill)
        _first_call(started)
        yield started


def _fill(target: Target, work: Path, up: int, data: Path | None) -> dict[str, str]:
    ports = {name: str(free_port()) for name in ("port", "admin", "intake", "admin_2", "broker")}
    lib = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    paths = {"work": work, "data": data or work / "proxy", "build": BUILD, "root": ROOT, "peers": HERE / "peers", "home": target.home()}
    fill = {**ports, "up": str(up), "python": sys.executable, "lib": lib, **{name: str(path) for name, path in paths.items()}}
    if target.config:
        config = work / target.config.removesuffix(".in")
        config.write_text(_filled((HERE / "peers" / target.config).read_text(), fill))
        fill["config"] = str(config)
    return fill


def _filled(text: str, fill: dict[str, str]) -> str:
    for key, value in fill.items():
        text = text.replace(f"{{{key}}}", value)
    return text


@contextmanager
def _process(target: Target, line: str, serves: str, fill: dict[str, str], core: int) -> Iterator[int]:
    log = Path(fill["work"]) / f"{serves}.log"
    # Peers have packages of their own; bytecode is kept, or lazy imports would be compiled again and again.
    ours = {"PYTHONPATH": str(target.source())} if line.startswith("{python}") else {}
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *shlex.split(_filled(line, fill))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**inherited, **ours, **target.environment},
            cwd=fill["work"],
            start_new_session=True,
        )
    try:
        _wait_for(target, process, serves, fill, log)
        yield process.pid
    finally:
        _stop(process)


def _wait_for(target: Target, process: subprocess.Popen[bytes], serves: str, fill: dict[str, str], log: Path) -> None:
    """Until the port takes connections; a port that the target picked itself is put in the place of ours."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if target.picks_port:
                fill[serves] = (Path(fill["work"]) / "port").read_text()
            socket.create_connection(("127.0.0.1", int(fill[serves])), 0.5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise NotStarted(f"{target.name} did not start: {log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL to the group that we made."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)


def _first_call(started: Running) -> None:
    model = started.target.model.format("fake")
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"one"}}]}}'.encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    headers |= dict(_filled(header, started.fill).split(": ", 1) for header in started.target.headers)
    try:
        urllib.request.urlopen(urllib.request.Request(started.url, data=body, headers=headers), timeout=FIRST_CALL_S).read()
    except OSError as error:
        raise NotStarted(f"{started.target.name}: the first call failed: {error}") from error
