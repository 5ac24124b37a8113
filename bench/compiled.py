"""Clearpane as its images have it: the path of a call compiled (docs/decisions/0013-compiled.md)."""

import functools
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from bench.peers.install import Unavailable

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "bench" / "build" / "compiled"
_PACKAGES = ("clearpane", "proxy", "consumer", "reader")


@functools.cache
def folder() -> Path:
    """The modules of a compiled wheel of these sources; built when it is not there yet. Raises Unavailable, which says why."""
    made = KEPT / _digest()
    if not made.is_dir():
        shutil.rmtree(KEPT, ignore_errors=True)
        staging = KEPT / "staging"
        done = subprocess.run([ROOT / "deploy" / "wheel", staging / "dist", sys.executable], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(done.stderr.strip() or "no compiled wheel could be built")
        (wheel,) = (staging / "dist").glob("*.whl")
        zipfile.ZipFile(wheel).extractall(staging)
        staging.rename(made)
    return made


def _digest() -> str:
    """Of every source that goes into the wheel, and of the interpreter that it is for."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted([ROOT / "pyproject.toml", *(each for name in _PACKAGES for each in (ROOT / name).rglob("*.py"))]):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
