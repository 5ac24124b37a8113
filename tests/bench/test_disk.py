"""The full disk of the fault runs, on a folder of the test's own."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bench.disk import Place
from bench.serving import Running
from bench.targets import DIRECT


def test_where_nothing_can_be_mounted_no_file_of_the_proxy_grows(tmp_path: Path) -> None:
    program = "import sys, time\nprint('ready', flush=True)\nfor line in sys.stdin:\n    time.sleep(0)\n"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        with Place(tmp_path, mounted=False).full(Running(DIRECT, "", 0, {process.pid}, {})):
            assert resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[0] == 1
        assert resource.prlimit(process.pid, resource.RLIMIT_FSIZE) == before
        process.kill()


def test_the_filler_takes_the_last_byte_and_gives_all_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken, room = [], [200_001]

    def write(_: int, piece: bytes) -> int:
        if len(piece) > room[0]:
            raise OSError(28, "No space left on device")
        room[0] -= len(piece)
        taken.append(len(piece))
        return len(piece)

    monkeypatch.setattr(os, "write", write)
    with Place(tmp_path, mounted=True).full(Running(DIRECT, "", 0, set(), {})):
        assert room[0] == 0
        assert sum(taken) == 200_001
    assert list(tmp_path.iterdir()) == []
