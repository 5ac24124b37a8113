"""Promise 2 and 3 at a glance: `clearpane demo` ends 0, each call recorded once, tokens and cost as stated."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clearpane.cli.script import CALLS

ROOT = Path(__file__).parents[2]
DEMO_S = 120.0  # alone on a machine it takes some fifteen seconds
pytestmark = pytest.mark.timeout(180)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}


def clearpane(*arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clearpane.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    data = tmp_path_factory.mktemp("demo")
    return clearpane("demo", "--data", str(data), timeout_s=DEMO_S), data


def test_the_demo_comes_out_even(demo):
    ended, _ = demo
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert f"each of {CALLS} calls recorded once" in ended.stdout
    assert "to the last digit" in ended.stdout


def test_the_demo_fits_80_columns(demo):
    ended, data = demo
    lines = [line for line in ended.stdout.splitlines() if str(data) not in line]
    assert [line for line in lines if len(line) > 80] == []


def test_the_records_are_there_afterwards(demo):
    _, data = demo
    listed = clearpane("calls", "--lake", str(data / "lake"), "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert len({row["request_id"] for row in rows}) == len(rows) == CALLS
    assert {row["user_id"] for row in rows} == {"ada", "bo", "cy"}
    assert {row["session_id"] for row in rows} == {"ada-trip", "bo-trip", "cy-trip"}
    assert {row["properties"]["team"] for row in rows} == {"travel", "editors", "search"}
    assert {row["end"] for row in rows} == {"complete", "client_disconnected"}
    assert {row["status"] for row in rows} == {200, 429}


def test_the_lake_verifies(demo):
    _, data = demo
    assert clearpane("verify", "--lake", str(data / "lake")).returncode == 0
