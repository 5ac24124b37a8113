"""What a process gives back of the memory that it has freed."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIECES, PIECE_BYTES = 100, 1 << 20
# A small piece that stays behind each large one: what is not at the end of the heap cannot be given back.
CHILD = f"""
import sys
from clearpane.runtime import memory

def rss_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

bytes({2 * PIECE_BYTES})  # from its end on the C library takes pieces of this size for common ones
before = rss_bytes()
large, small = [], []
for number in range({PIECES}):
    large.append(b"x" * {PIECE_BYTES})
    small.append(b"x" * (2000 + number))
large.clear()
if sys.argv[1] == "given back":
    memory.give_back()
print(rss_bytes() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library gives back by itself")
@pytest.mark.parametrize(("how", "kept"), [("given back", False), ("as it is", True)])
def test_freed_pieces_go_back_to_the_machine(how: str, kept: bool) -> None:
    found = subprocess.run([sys.executable, "-c", CHILD, how], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (int(found.stdout) > PIECES * PIECE_BYTES // 2) is kept
