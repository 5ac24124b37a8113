"""What the load generator printed, read to its last line however its lines came."""

import subprocess
import sys

import pytest

from bench.scenarios import LoadFailed, outcome


def printing(text: str, status: int = 0) -> "subprocess.Popen[str]":
    program = f"import sys; sys.stdout.write({text!r}); sys.stderr.write('why'); sys.exit({status})"
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_figures_that_came_together_with_the_mark_before_them_are_not_lost() -> None:
    with printing('BEGIN\nEND\n{"done": 1}\n') as load:
        assert load.stdout is not None
        assert [load.stdout.readline(), load.stdout.readline()] == ["BEGIN\n", "END\n"]
        assert outcome(load) == {"done": 1}


@pytest.mark.parametrize(("text", "status"), [("", 0), ("BEGIN\n", 3)])
def test_a_load_generator_that_failed_says_why(text: str, status: int) -> None:
    with printing(text, status) as load, pytest.raises(LoadFailed, match=f"{status}: why"):
        outcome(load)
