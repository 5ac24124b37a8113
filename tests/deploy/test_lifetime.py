"""Services live as long as they should: no test run leaves one behind, however it ends."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SERVICES = [sys.executable, str(Path(__file__).parents[2] / "deploy" / "services")]
GONE_TIMEOUT_S = 10.0
Environ = dict[str, str]


def listening(folder: Path) -> bool:
    port = json.loads((folder / "versitygw" / "ports.json").read_text())["port"]
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def gone(folder: Path) -> bool:
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while listening(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not listening(folder)


def started(folder: Path, services_environment: Environ) -> subprocess.Popen[bytes]:
    """`with` a command that never ends by itself; returns when the command runs."""
    flag = folder / "runs"
    argv = [*SERVICES, "with", "versitygw", "--in", str(folder), "--", "sh", "-c", f"touch {flag}; exec sleep 50"]
    process = subprocess.Popen(argv, env=services_environment, stdout=subprocess.DEVNULL)
    while not flag.exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


@pytest.mark.s3
def test_the_commands_status_is_handed_on(tmp_path: Path, services_environment: Environ) -> None:
    argv = [*SERVICES, "with", "versitygw", "--in", str(tmp_path), "--", "sh", "-c", "echo $CLEARPANE_TEST_S3; exit 7"]
    done = subprocess.run(argv, env=services_environment, capture_output=True, text=True)
    assert done.returncode == 7
    assert done.stdout.startswith("Real versitygw 1.8.0 at 127.0.0.1:")
    assert done.stdout.endswith("s3://clearpane\n")
    assert gone(tmp_path)


@pytest.mark.s3
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_run_that_is_killed_leaves_no_service(tmp_path: Path, services_environment: Environ, number: signal.Signals) -> None:
    process = started(tmp_path, services_environment)
    assert listening(tmp_path)
    process.send_signal(number)
    process.wait(GONE_TIMEOUT_S)
    assert gone(tmp_path)


@pytest.mark.s3
def test_started_services_stay_until_they_are_stopped(tmp_path: Path, services_environment: Environ) -> None:
    subprocess.run([*SERVICES, "start", "versitygw", "--in", str(tmp_path)], env=services_environment, check=True, capture_output=True)
    try:
        assert listening(tmp_path)
        assert (
            f"export AWS_ENDPOINT_URL_S3=http://127.0.0.1:{json.loads((tmp_path / 'versitygw/ports.json').read_text())['port']}\n"
            in (tmp_path / "services.env").read_text()
        )
    finally:
        subprocess.run([*SERVICES, "stop", "versitygw", "--in", str(tmp_path)], env=services_environment, check=True)
    assert gone(tmp_path)


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_what_a_machine_cannot_have_is_said_in_one_line(tmp_path: Path, ci: str, status: int) -> None:
    """An empty cache and no Maven: the command runs without Kafka, and with CI=true it does not run at all."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "echo"):
        (programs / name).symlink_to(str(shutil.which(name)))
    environ = {"PATH": str(programs), "HOME": str(tmp_path), "CLEARPANE_CACHE": str(tmp_path / "cache"), "CI": ci}
    argv = [*SERVICES, "with", "kafka", "--", "sh", "-c", "echo ${CLEARPANE_TEST_KAFKA:-none}"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True)
    assert done.returncode == status
    first, *rest = done.stdout.splitlines()
    assert first.startswith("Left out: tests marked `kafka`, because there is no Apache Kafka 4.1.0 here: Maven is not on this machine")
    assert rest == ([] if ci else ["none"])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["kafka-4.1.0.lock"]
