"""The modules under test are of the kind that is meant: `make test` runs the sources, `make test-compiled` what they compile to."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
NAMED = {path.relative_to(ROOT) for pattern in HOOK["include"] for path in ROOT.glob(pattern.lstrip("/"))}
LEFT_OUT = {path for path in NAMED if path.name in HOOK["exclude"] or f"/{path}" in HOOK["exclude"]}
MODULES = [".".join(path.with_suffix("").parts) for path in sorted(NAMED - LEFT_OUT)]


@pytest.mark.parametrize("name", MODULES)
def test_module_is_compiled_where_it_is_to_be(name: str, request: pytest.FixtureRequest) -> None:
    found = importlib.import_module(name).__file__
    assert found is not None
    assert found.endswith(".so") == request.config.getoption("compiled")


def test_the_path_of_a_call_is_among_them() -> None:
    assert {"proxy.relay", "proxy.call", "proxy.upstream.connection", "proxy.recorder.ring"} <= set(MODULES)


def test_version_tells_which_build_it_is(request: pytest.FixtureRequest) -> None:
    done = subprocess.run([sys.executable, "-m", "clearpane.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("(compiled)") == request.config.getoption("compiled")
