"""The commands as people run them: output, exit codes, one line for what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clearpane.contract.records import COLUMNS

ROOT = Path(__file__).parents[2]


def clearpane(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clearpane.cli", *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=50,
    )


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "TZ": "UTC", **variables}


@pytest.fixture
async def lake(maker: Any, spool_log: str) -> Any:
    rows = [maker.call(maker.now + timedelta(seconds=i), user_id=f"user{i}", status=200 + 300 * (i % 2)) for i in range(60)]
    await maker.append(spool_log, rows)
    maker.rows = rows
    return maker


def test_calls_as_json_lines(lake: Any, folder: Path) -> None:
    done = clearpane("calls", "--lake", str(folder), "--json", cwd=folder)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr, len(found)) == (0, "", 60)
    assert all(list(row) == list(COLUMNS) for row in found)
    assert [row["request_id"] for row in found] == [row["request_id"] for row in lake.rows]


def test_calls_as_a_table_shows_the_newest_last(lake: Any, folder: Path) -> None:
    done = clearpane("calls", "--lake", str(folder), cwd=folder, COLUMNS="80")
    header, *body, empty, totals = done.stdout.splitlines()
    assert (done.returncode, header.split()[0], len(body), empty) == (0, "TIME", 50, "")
    assert "user59" in body[-1]
    assert totals.startswith("50 calls · $")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_calls_by_filter(lake: Any, folder: Path) -> None:
    done = clearpane("calls", "--lake", str(folder), "--json", "--status", "error", "--limit", "2", cwd=folder)
    assert [json.loads(line)["user_id"] for line in done.stdout.splitlines()] == ["user57", "user59"]
    done = clearpane("calls", "--lake", str(folder), "--user", "nobody", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no calls recorded that match\n")


def test_a_wrong_filter_is_one_line(lake: Any, folder: Path) -> None:
    for flag, value in (("--since", "yesterday"), ("--status", "ok"), ("--property", "x"), ("--min-cost", "much")):
        done = clearpane("calls", "--lake", str(folder), flag, value, cwd=folder)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert repr(value) in done.stderr


@pytest.mark.parametrize("command", [("calls",), ("show", "019aa0b1-2c3d"), ("query", "select 1"), ("verify",)])
def test_a_lake_that_is_not_there(tmp_path: Path, command: tuple[str, ...]) -> None:
    for arguments in ((), ("--lake", str(tmp_path / "nowhere"))):
        done = clearpane(*command, *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert "--lake" in done.stderr
        assert sorted(tmp_path.iterdir()) == []


def test_the_embedded_lake_is_found(maker: Any, folder: Path) -> None:
    data = folder.parent / "clearpane-data"
    data.mkdir()
    folder.rename(data / "lake")
    assert clearpane("verify", cwd=folder.parent).stdout.startswith("clearpane-data/lake: 0 logs")
    assert clearpane("verify", cwd=folder.parent.parent, CLEARPANE_LAKE=str(data / "lake")).returncode == 0


def test_a_reader_that_stops_early_is_no_error(lake: Any, folder: Path) -> None:
    shell = f"{sys.executable} -m clearpane.cli calls --json --lake {folder} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], env=environment(), capture_output=True, text=True, timeout=50)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


def test_show(lake: Any, folder: Path) -> None:
    name = lake.rows[7]["request_id"]
    done = clearpane("show", "--lake", str(folder), name[:18], cwd=folder)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, name)
    done = clearpane("show", "--lake", str(folder), name, "--json", cwd=folder)
    assert json.loads(done.stdout)["request_id"] == name
    assert clearpane("show", "--lake", str(folder), name, "--body", "request", cwd=folder).stdout == '{"model":"gpt-4o-mini"}'


def test_show_without_such_a_call(lake: Any, folder: Path) -> None:
    for text, word in ((lake.request_id(lake.now), "no call"), (lake.rows[0]["request_id"][:8], "calls begin with"), ("x", "no id")):
        done = clearpane("show", "--lake", str(folder), text, cwd=folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert word in done.stderr


def test_query(lake: Any, folder: Path) -> None:
    sql = "select status, count(*) n, sum(cost_total) usd from calls group by status order by status"
    assert clearpane("query", "--lake", str(folder), sql, "--csv", cwd=folder).stdout.splitlines() == [
        "status,n,usd",
        "200,30,0.000666",
        "500,30,0.000666",
    ]
    done = clearpane("query", "--lake", str(folder), sql, "--json", cwd=folder)
    assert json.loads(done.stdout.splitlines()[0]) == {"status": 200, "n": 30, "usd": "0.000666"}
    assert "2 rows" in clearpane("query", "--lake", str(folder), sql, cwd=folder).stdout


def test_a_wrong_query_is_one_line(lake: Any, folder: Path) -> None:
    done = clearpane("query", "--lake", str(folder), "selec 1", cwd=folder)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


async def test_verify(lake: Any, folder: Path) -> None:
    assert clearpane("verify", "--lake", str(folder), cwd=folder).returncode == 0
    await lake.store.put(lake.objects[0], b"damaged")
    done = clearpane("verify", "--lake", str(folder), "--json", cwd=folder)
    report = json.loads(done.stdout)
    assert (done.returncode, report["clean"], report["findings"][0]["object"]) == (1, False, lake.objects[0])


async def test_follow_shows_what_comes_and_ends_with_ctrl_c(maker: Any, folder: Path) -> None:
    now = datetime.now(UTC)
    await maker.append("k-calls-0-0", [maker.call(now, user_id="first")])
    command = [sys.executable, "-m", "clearpane.cli", "calls", "--follow", "--json", "--lake", str(folder)]
    following = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in its background has them ignore Ctrl-C, and their children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - this process starts no threads
    )
    try:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["user_id"] == "first"
        await maker.append("k-calls-0-0", [maker.call(now, user_id="second")])
        assert json.loads(following.stdout.readline())["user_id"] == "second"
        time.sleep(1.5)
        following.send_signal(signal.SIGINT)
        rest, errors = following.communicate(timeout=10)
        assert (following.returncode, rest, errors) == (0, "", "")
    finally:
        following.kill()
        following.wait()
