"""What a reader relies on when walking down the tree: small modules, small functions, telling names, nothing of one machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}
# Taken apart, so that this file does not find itself.
REGISTRIES = ["pypi" + ".org", "python" + "hosted.org", "repo1.maven" + ".org", "repo.maven" + ".apache.org", "proxy.golang" + ".org"]
REGISTRIES += ["sum.golang" + ".org", "registry.npmjs" + ".org", "deb.debian" + ".org", "static.crates" + ".io", "index.crates" + ".io"]
MACHINE = re.compile(r"(?<![\w.])/(?:wo" + r"rk|ro" + r"ot|tmp/l" + r"ab)/|\.\./sha" + "red/")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listed.split(b"\0") if name and (path := ROOT / name.decode()).is_file()]


MODULES = [path for path in tracked() if path.suffix == ".py"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_something_to_look_at() -> None:
    assert {"clearpane", "proxy", "consumer", "reader", "tests", "deploy"} <= {path.relative_to(ROOT).parts[0] for path in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_module_is_small_and_well_named(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    assert not {module.stem, *module.relative_to(ROOT).parent.parts} & BANNED_NAMES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno}
    assert {name: lines for name, lines in long.items() if lines > FUNCTION_LINES_MAX} == {}


def test_test_folders_are_no_packages() -> None:
    """An `__init__.py` in tests/proxy/ hides the real `proxy`."""
    assert [named(path) for path in tracked() if path.name == "__init__.py" and "tests" in path.relative_to(ROOT).parts] == []


def test_tracked_files_name_no_machine_and_no_registry() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{named(path)}: {host}" for host in REGISTRIES if host in text]
        found += [f"{named(path)}: {match[0]}" for match in MACHINE.finditer(text)]
    assert found == []
