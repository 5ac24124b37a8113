"""A small disk that can be filled: a tmpfs where it may be mounted, else a limit on the size of every file written."""

import contextlib
import errno
import os
import resource
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.serving import Running

SIZE_MIB = 256
_REFILL_EVERY_S = 0.02
_PIECE = bytes(1 << 16)


@dataclass(frozen=True, slots=True)
class Place:
    """`folder` lies on a file system of its own if `mounted`."""

    folder: Path
    mounted: bool

    @property
    def described(self) -> str:
        if self.mounted:
            return f"The spool lies on a tmpfs of {SIZE_MIB} MiB; for `disk full` another file takes all that is left of it, all the time."
        return "A tmpfs could not be mounted here; for `disk full` no file may grow (RLIMIT_FSIZE of every process of the proxy)."

    @contextmanager
    def full(self, server: Running) -> Iterator[None]:
        with self._filled() if self.mounted else _limited(server):
            yield

    @contextmanager
    def _filled(self) -> Iterator[None]:
        filler = self.folder / "filler"
        ended = threading.Event()
        with filler.open("wb", buffering=0) as file:
            _fill(file.fileno())
            thread = threading.Thread(target=_keep_full, args=(file.fileno(), ended), name="filler")
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
                filler.unlink()


@contextmanager
def small() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="bench-disk-", ignore_cleanup_errors=True) as folder:
        mounted = _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", folder)
        try:
            yield Place(Path(folder), mounted)
        finally:
            if mounted:
                _run("umount", folder)


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _keep_full(descriptor: int, ended: threading.Event) -> None:
    """What others free is taken again."""
    while not ended.wait(_REFILL_EVERY_S):
        _fill(descriptor)


def _fill(descriptor: int) -> None:
    piece = len(_PIECE)
    while piece:
        try:
            os.write(descriptor, _PIECE[:piece])
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            piece //= 2


@contextmanager
def _limited(server: Running) -> Iterator[None]:
    pids = processes.tree(server.roots, processes.table())
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
