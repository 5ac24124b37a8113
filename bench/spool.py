"""What the spool costs the caller, and how much it takes in: `python -m bench.spool [folder]`. Prints a table."""

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles

from proxy.spool import SpoolReader, SpoolThread

FACTS = b'{"schema":"call.v1","event":"completed","pad":"' + b"f" * 1400 + b'"}'
MARK = FACTS[:300]
COLUMNS = (
    "body",
    "pace",
    "admit p50 µs",
    "p99",
    "max",
    "completed p50 µs",
    "p99",
    "max",
    "records/s",
    "MB/s",
    "CPU µs",
    "dropped",
    "read MB/s",
)


def main() -> None:
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    print("".join(f"{name:>18}" if len(name) > 9 else f"{name:>10}" for name in COLUMNS))
    for body_bytes, pause_s, calls in (
        (0, 0.001, 2000),
        (4096, 0.001, 2000),
        (32768, 0.001, 2000),
        (0, 0, 50_000),
        (4096, 0, 50_000),
        (32768, 0, 10_000),
    ):
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            row = measure(Path(folder), body_bytes, pause_s, calls)
        print("".join(f"{cell:>18}" if len(name) > 9 else f"{cell:>10}" for name, cell in zip(COLUMNS, row, strict=True)))


def measure(root: Path, body_bytes: int, pause_s: float, calls: int) -> list[str]:
    """`pause_s` between calls; 0 pushes as hard as the queue allows."""
    spool = SpoolThread(root, bytes_max=8 << 30, segment_bytes=64 << 20, queue_bytes_max=64 << 20)
    spool.start()
    body = os.urandom(body_bytes // 2)
    admits, completes = [], []
    cpu, begun = time.process_time(), time.perf_counter()
    for _ in range(calls):
        while not pause_s and spool.queue_bytes > 16 << 20:
            time.sleep(0.001)
        at = time.perf_counter_ns()
        sequence = spool.admit(MARK)
        then = time.perf_counter_ns()
        spool.completed(sequence, FACTS, body, body)
        admits.append(then - at)
        completes.append(time.perf_counter_ns() - then)
        if pause_s:
            time.sleep(pause_s)
    stopped = spool.stop(60)
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    counters = spool.counters
    dropped = "none" if stopped and counters.written_records == calls else str(calls - counters.written_records)
    pace = f"{1 / pause_s:.0f}/s" if pause_s else "full"
    written = counters.written_bytes / took / 1e6
    return [
        str(body_bytes),
        pace,
        *spread(admits),
        *spread(completes),
        f"{calls / took:.0f}",
        f"{written:.0f}",
        f"{cpu / calls * 1e6:.1f}",
        dropped,
        f"{read(spool.folder):.0f}",
    ]


def spread(nanoseconds: list[int]) -> list[str]:
    cuts = quantiles(nanoseconds, n=100)
    return [f"{cuts[49] / 1e3:.1f}", f"{cuts[98] / 1e3:.1f}", f"{max(nanoseconds) / 1e3:.0f}"]


def read(folder: Path) -> float:
    reader = SpoolReader(folder, sealed=True)
    begun, total = time.perf_counter(), 0
    while frames := reader.read(1000, 4 << 20):
        total += sum(len(frame.payload) for frame in frames)
    reader.close()
    return total / (time.perf_counter() - begun) / 1e6


if __name__ == "__main__":
    main()
