"""Parents and children: restarts, refusals, the stop ladder, and what happens when the parent is killed."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from clearpane.runtime.children import Child, ChildFailed, Role
from clearpane.runtime.handover import Handover
from clearpane.settings import Settings

ROOT = Path(__file__).parents[2]
OBEDIENT = """
    from clearpane.runtime import child
    async def main(handover, report, stopped):
        report({"event": "ready", "got": handover.settings.intake_secret, "switch": handover.switches["x"]})
        await stopped
        report({"event": "stopped"})
"""
STUBBORN = """
    import asyncio
    from clearpane.runtime import child
    async def main(handover, report, stopped):
        report({"event": "ready"})
        await stopped
        await asyncio.sleep(60)
"""
REFUSING = """
    from clearpane.runtime import child
    async def main(handover, report, stopped):
        raise ValueError("these settings cannot work")
"""


def role(tmp_path: Path, body: str, **changes: Any) -> Role:
    (tmp_path / "part.py").write_text(textwrap.dedent(body) + "\nif __name__ == '__main__':\n    child.run(main, refusals=(ValueError,))\n")
    settings = Settings(intake_secret="a secret of sixteen", data=tmp_path)
    return Role(
        name="part",
        module="part",
        handover=Handover(settings=settings, switches={"x": 1}),
        environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stop_timeout_s=changes.get("stop_timeout_s", 10.0),
    )


async def test_a_child_gets_its_handover_and_stops_when_told(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    child = Child(role(tmp_path, OBEDIENT), lambda _, event: heard.append(event))
    await child.until_ready()
    await child.stop()
    assert heard[0] == {"event": "ready", "got": "a secret of sixteen", "switch": 1}
    assert [event["event"] for event in heard] == ["ready", "stopped", "gone"]


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    child = Child(role(tmp_path, OBEDIENT))
    await child.until_ready()
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(20):
        while child.pid in (first, None) or not child.ready.is_set():
            await asyncio.sleep(0.02)
    assert child.restarts == 1
    await child.stop()


async def test_a_stubborn_child_is_killed(tmp_path: Path) -> None:
    child = Child(role(tmp_path, STUBBORN, stop_timeout_s=0.3))
    await child.until_ready()
    pid = child.pid
    assert pid is not None
    async with asyncio.timeout(10):
        await child.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_that_refuses_is_not_started_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(role(tmp_path, REFUSING))
    with pytest.raises(ChildFailed):
        await child.until_ready(20)
    assert child.restarts == 0
    assert "these settings cannot work" in capfd.readouterr().err
    with pytest.raises(ChildFailed):
        await child.failed()


def test_a_child_leaves_when_its_parent_is_killed(tmp_path: Path) -> None:
    made = role(tmp_path, OBEDIENT)
    parent = textwrap.dedent(f"""
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-m", "part"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdin.write({made.handover.to_line()!r}); child.stdin.flush(); child.stdout.readline()
        print(child.pid, flush=True); time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env={**os.environ, **made.environment})
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        subprocess.run(["sleep", "0.05"])
    pytest.fail("the child outlived its parent")
