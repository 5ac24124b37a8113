"""A service is a program with a folder of its own: address, data, log and process id stand in it, so a restart finds the same."""

import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cache import Unavailable

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
PR_SET_PDEATHSIG = 1
PORTS = range(10_000, 32_000)


@dataclass(frozen=True)
class Service:
    """`fetch` makes the program available, `command` prepares the folder and says what to execute, `answers` asks it over its port."""

    name: str
    label: str
    fetch: Callable[[], Path]
    command: Callable[[Path], tuple[list[str], dict[str, str]]]
    answers: Callable[[Path], bool]


def address(folder: Path, port_name: str = "port") -> str:
    """HOST:PORT on loopback: a free port when first asked, the same one ever after."""
    file = folder / "ports.json"
    ports = json.loads(file.read_text()) if file.exists() else {}
    if port_name not in ports:
        folder.mkdir(parents=True, exist_ok=True)
        ports[port_name] = _free_port()
        new = file.with_suffix(".new")
        new.write_text(json.dumps(ports))
        new.replace(file)  # who looks meanwhile sees all of it or nothing
    return f"127.0.0.1:{ports[port_name]}"


def _free_port() -> int:
    """Below those that the system gives to outgoing connections: it stays free until the service uses it."""
    while True:
        port = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port


def stated(folder: Path, port_name: str) -> str | None:
    """HOST:PORT on loopback, if somebody gave this port a number."""
    file = folder / "ports.json"
    port = json.loads(file.read_text()).get(port_name) if file.exists() else None
    return port and f"127.0.0.1:{port}"


def execute(service: Service, folder: Path, *, tied: bool) -> None:
    """Becomes the service. A tied one dies with its parent, whatever ends that."""
    if tied:
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent is gone")
    argv, environ = service.command(folder)
    os.execve(argv[0], argv, {**os.environ, **environ})


def start(service: Service, folder: Path, *, tied: bool = False) -> None:
    """Returns when the service answers. Raises Unavailable with the end of its log."""
    if running(service, folder):
        return
    service.fetch()
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, str(Path(__file__).parent), "run", service.name, "--in", str(folder), *(["--tied"] if tied else [])]
    with _log(service, folder).open("ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    _pid_file(service, folder).write_text(str(process.pid))
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not service.answers(folder):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(service, folder)
            tail = _log(service, folder).read_text(errors="replace").splitlines()[-8:]
            raise Unavailable(f"{service.label} did not start: " + "\n  ".join(tail))
        time.sleep(POLL_S)


def stop(service: Service, folder: Path) -> None:
    """SIGTERM, then SIGKILL after STOP_TIMEOUT_S; a service that does not run is stopped already."""
    pid = running(service, folder)
    if pid is None:
        return
    deadline = time.monotonic() + STOP_TIMEOUT_S
    _signal(pid, signal.SIGTERM)
    while running(service, folder) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    if running(service, folder):
        _signal(pid, signal.SIGKILL)
    _pid_file(service, folder).unlink(missing_ok=True)


def running(service: Service, folder: Path) -> int | None:
    """Its process id; a stale file, whose number belongs to another program by now, does not count."""
    try:
        pid = int(_pid_file(service, folder).read_text())
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(folder) in words else None


def log_text(service: Service, folder: Path) -> str:
    return _log(service, folder).read_text(errors="replace")


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _pid_file(service: Service, folder: Path) -> Path:
    return folder / f"{service.name}.pid"


def _log(service: Service, folder: Path) -> Path:
    return folder / f"{service.name}.log"
