"""Memory and descriptors of every process of the stage over time, and whether they grow."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SAMPLE_S = 1.0
SAMPLES_LEAST = 300  # fewer say nothing about growth
RSS_GROWTH_MAX, RSS_SLACK_KIB = 1.1, 4 << 10
DESCRIPTORS_GROWTH_MAX = 16  # connections that are kept for a while
CONNECTIONS_MOVED_MAX = 48  # a worker gets the callers of another that was killed: two descriptors each
ROLES = {"clearpane.cli": "supervisor", "proxy.worker": "worker", "proxy.recorder": "recorder", "proxy.shipper": "shipper"}
ROLES |= {"tests.faults.member": "consumer"}


@dataclass
class Growth:
    """Samples the roots and every process that they started once a second. RSS in KiB."""

    roots: Callable[[], list[int]]  # process ids, asked for each time
    found: dict[tuple[str, int], list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))  # by role and process id

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for pid in descendants(self.roots()):
                with contextlib.suppress(OSError, StopIteration):  # it has just ended: its memory is gone before its number
                    if role := role_of(pid):
                        self.found[role, pid].append(_sample(pid))
            await asyncio.sleep(SAMPLE_S)

    def summary(self) -> dict[str, Any]:
        """Of each role, the life that lasted longest."""
        lives: dict[str, list[list[tuple[int, int]]]] = defaultdict(list)
        for (role, _), samples in self.found.items():
            lives[role].append(samples)
        return {
            role: {
                "lives": len(each),
                **flatness(max(each, key=len), CONNECTIONS_MOVED_MAX if role == "worker" else DESCRIPTORS_GROWTH_MAX),
            }
            for role, each in sorted(lives.items())
        }


def descendants(roots: list[int]) -> Iterator[int]:
    """The roots and all that they started, and that started."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children[int(parent)].append(int(entry.name))
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += sorted(children[pid])


def role_of(pid: int) -> str | None:
    """None: it is none of ours, or gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return None
    return next((ROLES[word] for word in words if word in ROLES), None)


def _sample(pid: int) -> tuple[int, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    rss_kib = int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
    return rss_kib, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def flatness(samples: list[tuple[int, int]], descriptors_growth_max: int = DESCRIPTORS_GROWTH_MAX) -> dict[str, Any]:
    """The lows of the four quarters: what a fifth of the samples stays below, which is what is left when no outage is under way.
    `flat`: the last does not lie above the second by more than the bounds; the first warms up, the third may have caught up on an
    outage. None: too short to tell."""
    size = max(1, len(samples) // 4)
    quarters = [samples[start : start + size] for start in range(0, size * 4, size) if samples[start : start + size]]
    rss = [_low([kib for kib, _ in quarter]) for quarter in quarters]
    descriptors = [_low([count for _, count in quarter]) for quarter in quarters]
    flat = None
    if len(samples) >= SAMPLES_LEAST:
        rss_max = rss[1] * RSS_GROWTH_MAX + RSS_SLACK_KIB
        flat = rss[-1] <= rss_max and descriptors[-1] <= descriptors[1] + descriptors_growth_max
    return {
        "samples": len(samples),
        "rss_kib": rss,
        "rss_kib_max": max(kib for kib, _ in samples),
        "descriptors": descriptors,
        "descriptors_max": max(count for _, count in samples),
        "flat": flat,
    }


def _low(values: list[int]) -> int:
    return sorted(values)[len(values) // 5]
