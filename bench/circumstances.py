"""What has to be known about a run: when, which versions, which machine, how quiet it was."""

import os
import platform
import re
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.peers import install
from bench.results import Results
from bench.serving import DOCUMENT, ROOT
from bench.targets import NGINX


def observe(targets: list[str], missing: dict[str, str], rounds: int, seconds: float) -> dict[str, Any]:
    """`missing`: targets that could not be had, and why."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "versions": [f"Python {platform.python_version()}", *(_version(target) for target in targets if _version(target))],
        "machine": f"{_processor()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "missing": missing,
        "rounds": rounds,
        "seconds": seconds,
    }


def lines(results: Results) -> str:
    facts = results.circumstances
    others = [result.others for result in results.all if result.scenario != "delivery"] or [0.0]
    taken = f"{statistics.median(others):.2f} (median), {max(others):.2f} (worst run)"
    return "\n".join(
        [
            head(facts),
            f"All other processes took, in cores: {taken}.",
            *(f"Not measured: {name}: {reason}." for name, reason in facts["missing"].items()),
        ]
    )


def head(facts: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{facts['date']}, commit {facts['commit']}; {', '.join(facts['versions'])}.",
            f"{facts['machine']}; one core for the target, one for provider and load.",
            f"Medians of {facts['rounds']} interleaved rounds, {facts['seconds']:g} s per run.",
        ]
    )


def _version(target: str) -> str:
    if target == "nginx":
        said = subprocess.run([str(NGINX.home()), "-v"], capture_output=True, text=True, check=False).stderr
        return said.strip().removeprefix("nginx version: ").replace("/", " ")
    if target == "clearpane-uvloop":
        return f"uvloop {metadata.version('uvloop')}"
    return f"{target} {install.version(target)}" if target in install.NAMES else ""


def _commit() -> str:
    """Marked `-dirty` when a tracked file differs; the document that the tables are written into does not count."""
    try:
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{DOCUMENT.relative_to(ROOT)}")
        return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.machine()
