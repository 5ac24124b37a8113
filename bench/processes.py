"""What /proc says of processes: who belongs to whom, CPU seconds, memory."""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MODULE = re.compile(rb"\x00-m\x00([\w.]+)")
_QUIET_SAMPLE_S = 0.4
ROLES = {"proxy.worker": "worker", "proxy.recorder": "recorder", "proxy.shipper": "shipper", "consumer": "consumer"}


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
    """One of ROLES, or `other` (supervisors; anything that is not Clearpane's)."""
    try:
        return role_of(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return "other"


def role_of(command: bytes) -> str:
    """By the module that the command line names, or the package that it is in; `broker` is Kafka."""
    if b"\x00kafka.Kafka\x00" in command:
        return "broker"
    match = _MODULE.search(command)
    module = match[1].decode() if match else ""
    return next((name for prefix, name in ROLES.items() if f"{module}.".startswith(f"{prefix}.")), "other")


def cpu_s(roots: set[int], processes: Table) -> float:
    """CPU seconds so far of these and all their children."""
    return sum(processes[pid].cpu_s for pid in tree(roots, processes))


def cpu_by_role(roots: set[int], processes: Table) -> dict[str, float]:
    """CPU seconds so far."""
    sums: dict[str, float] = {}
    for pid in tree(roots, processes):
        name = role(pid)
        sums[name] = sums.get(name, 0.0) + processes[pid].cpu_s
    return sums


def peak_mib_by_role(roots: set[int]) -> dict[str, float]:
    """Peak resident memory since each process began."""
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


def busy_s() -> float:
    """CPU time of every process, those that have ended too, and what the hypervisor gave to others; interrupts are nobody's."""
    user, nice, system, _idle, _iowait, _irq, _softirq, stolen = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + stolen) / TICKS_PER_S


def wait_for_quiet(cores_max: float, patience_s: float) -> None:
    """Until everything else takes less than `cores_max`; not for ever: the run itself is measured too."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before, began = busy_s(), time.monotonic()
        time.sleep(_QUIET_SAMPLE_S)
        if (busy_s() - before) / (time.monotonic() - began) <= cores_max:
            return
