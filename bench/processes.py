"""What /proc says of processes: who belongs to whom, CPU seconds, memory."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MODULE = re.compile(rb"\x00-m\x00([\w.]+)")
_QUIET_SAMPLE_S = 0.4


@dataclass(frozen=True, slots=True)
class Process:
    parent: int
    cpu_s: float  # with children that are gone


Table = dict[int, Process]


def table() -> Table:
    found: Table = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended since
        found[int(folder.name)] = Process(int(fields[1]), sum(map(int, fields[11:15])) / TICKS_PER_S)
    return found


def tree(roots: set[int], processes: Table) -> set[int]:
    pids = roots & processes.keys()
    while more := {pid for pid, process in processes.items() if process.parent in pids} - pids:
        pids |= more
    return pids


def role(pid: int) -> str:
    """`worker`, `shipper`, `consumer`, or `other` (supervisors; anything that is not ours)."""
    try:
        match = _MODULE.search(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return "other"
    module = match[1].decode() if match else ""
    if module.startswith("consumer"):
        return "consumer"
    return module.removeprefix("proxy.") if module in {"proxy.worker", "proxy.shipper"} else "other"


def cpu_by_role(roots: set[int]) -> dict[str, float]:
    """CPU seconds so far."""
    processes = table()
    sums: dict[str, float] = {}
    for pid in tree(roots, processes):
        name = role(pid)
        sums[name] = sums.get(name, 0.0) + processes[pid].cpu_s
    return sums


def peak_mib_by_role(roots: set[int]) -> dict[str, float]:
    """Peak resident memory since `reset_peak`."""
    sums: dict[str, float] = {}
    for pid in tree(roots, table()):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        if match := re.search(r"VmHWM:\s*(\d+)", status):
            name = role(pid)
            sums[name] = sums.get(name, 0.0) + int(match[1]) / 1024
    return sums


def stolen_s() -> float:
    """CPU time that the hypervisor gave to others."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]) / TICKS_PER_S


def wait_for_quiet(cores_max: float, patience_s: float) -> None:
    """Until everything else takes less than `cores_max`; not for ever: the run itself is measured too."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = table()
        time.sleep(_QUIET_SAMPLE_S)
        if others_s(before, table(), {os.getpid()}) / _QUIET_SAMPLE_S <= cores_max:
            return


def others_s(before: Table, after: Table, known: set[int]) -> float:
    """CPU seconds between two tables of all processes but the known ones."""
    gone = Process(0, 0.0)
    return sum(max(0.0, process.cpu_s - before.get(pid, gone).cpu_s) for pid, process in after.items() if pid not in known)
