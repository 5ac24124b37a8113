"""The wheel, installed where no sources are: each extra brings all that its part imports, and the names are ours alone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ["clearpane", "proxy", "consumer", "reader"]
DATA = [
    "clearpane/contract/envelope.v1.schema.json",
    "consumer/derive/encodings/9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "consumer/derive/encodings/fb374d419588a4632f3f557e76b4b70aebbca790",
]
# Run with -P in a folder of its own: only what is installed can be found.
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""
OWNERS = "import importlib.metadata, json; print(json.dumps(importlib.metadata.packages_distributions()))"


def run(*argv: str | Path, cwd: Path) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(argv, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (found,) = folder.glob("*.whl")
    return found


def test_wheel_holds_the_four_packages_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} | set(DATA) <= set(names)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("requirements", "packages"),
    [("proxy.txt", ["clearpane.contract", "clearpane.runtime", "proxy"]), ("consumer.txt", ["clearpane.contract", "consumer", "reader"])],
)
def test_an_extra_brings_all_that_its_part_imports(wheel: Path, tmp_path: Path, requirements: str, packages: list[str]) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--require-hashes", "-r", ROOT / "requirements" / requirements, cwd=tmp_path)
    run(*pip, "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert packages[-1] in run(python, "-P", "-c", IMPORT_ALL, *packages, cwd=tmp_path)
    assert "usage" in run(tmp_path / "venv" / "bin" / "clearpane", "--help", cwd=tmp_path).lower()
    owners = run(python, "-P", "-c", OWNERS, cwd=tmp_path)
    assert all(f'"{package}": ["clearpane"]' in owners for package in PACKAGES)
