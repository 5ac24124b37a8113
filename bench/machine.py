"""What the machine has to offer a run: programs, cores, file descriptors; and the two C programs, built."""

import os
import resource
import shutil
import subprocess

from bench.serving import BUILD, HERE

FILES_NEEDED = 4096  # 1,000 streams through a proxy are 2,000 sockets of one process
FILES_WANTED = 65536


def missing() -> str | None:
    """What is needed and not there, and what to do about it."""
    if len(os.sched_getaffinity(0)) < 2:
        return "two CPU cores are needed: one for the target, one for provider and load"
    for program, package in (("cc", "gcc"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} is missing; on Debian and Ubuntu: apt-get install {package}"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 < hard < FILES_NEEDED:
        return f"{FILES_NEEDED} open files are needed and {hard} allowed: raise the hard limit (ulimit -Hn)"
    return None


def raise_file_limit() -> None:
    """For us and whatever we start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FILES_WANTED) if hard > 0 else FILES_WANTED, hard))


def cores() -> tuple[int, int]:
    """For load and provider; for the target."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    return first, second


def build() -> None:
    BUILD.mkdir(exist_ok=True)
    for program in ("provider", "load"):
        source, binary = HERE / f"{program}.c", BUILD / program
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", binary, source], check=True)
