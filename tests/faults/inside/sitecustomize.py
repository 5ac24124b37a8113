"""Faults inside of processes: an interpreter that finds this folder on its path looks here before it runs anything.

The file that `FAULTS_INSIDE` names holds JSON, and may change at any time: `clock_s` is added to the wall clock; `refuse` names calls of
`os` on files and the error each is answered with, `writev` after half of its bytes; `slow_s` names calls and how long each takes.
"""

import functools
import json
import os
import stat
import time
from collections.abc import Callable
from typing import Any

_FILE = os.environ.get("FAULTS_INSIDE", "")
_stat, _sleep = os.stat, time.sleep
_read: tuple[int, dict[str, Any]] = (0, {})


def _told() -> dict[str, Any]:
    global _read  # noqa: PLW0603 - a module that is one state
    try:
        changed = _stat(_FILE).st_mtime_ns
        if changed != _read[0]:
            with open(_FILE, "rb") as file:  # noqa: PTH123 - pathlib is not needed before every program
                _read = changed, json.loads(file.read())
    except (OSError, ValueError):
        pass  # it is being written: as before
    return _read[1]


def _count(name: str) -> None:
    with open(f"{_FILE}.{name}", "ab") as file:  # noqa: PTH123
        file.write(b"x")


def _troubled(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(descriptor: Any, *rest: Any, **named: Any) -> Any:
        told = _told()
        if pause_s := told.get("slow_s", {}).get(name):
            _count(name)
            _sleep(pause_s)
        error = told.get("refuse", {}).get(name)
        if error and stat.S_ISREG(os.fstat(descriptor).st_mode):
            _count(name)
            if name == "writev":
                data = b"".join(rest[0])
                if len(data) > 1:
                    return _write(descriptor, data[: len(data) // 2])
            raise OSError(error, os.strerror(error))
        return real(descriptor, *rest, **named)

    return call


def _jumping(real: Callable[[], Any], unit: int) -> Callable[[], Any]:
    return lambda: real() + _told().get("clock_s", 0) * unit


_write = os.write
if _FILE:
    for _name in ("writev", "write", "fdatasync", "fsync"):
        setattr(os, _name, _troubled(_name, getattr(os, _name)))
    time.time, time.time_ns = _jumping(time.time, 1), _jumping(time.time_ns, 1_000_000_000)
