"""Targets: every peer is pinned and configured for every scenario; processes are told apart by their command lines."""

import re
from pathlib import Path

import pytest

from bench import processes
from bench.peers import install
from bench.scenarios import SCENARIOS
from bench.serving import DOCUMENT
from bench.targets import PEERS, TARGETS

BENCH = Path(install.__file__).parents[1]


@pytest.mark.parametrize("template", ["crabllm.toml.in", "litellm.yaml.in", "tensorzero.toml.in"])
def test_gateways_that_list_their_models_list_those_of_every_scenario(template: str) -> None:
    listed = set(re.findall(r"fake[-\w]*", (BENCH / "peers" / template).read_text(encoding="utf-8")))
    assert listed == {scenario.model for scenario in SCENARIOS}


def test_every_peer_is_installed_by_us_at_a_pinned_version() -> None:
    assert {target.name for target in PEERS} == set(install.NAMES)
    assert all(re.fullmatch(r"\d+(\.\d+)+", install.version(name)) for name in install.NAMES)


def test_a_peer_that_needs_a_missing_program_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CLEARPANE_CACHE", str(tmp_path / "cache"))
    for name, program in (("crabllm", "cargo"), ("portkey", "node")):
        with pytest.raises(install.Unavailable, match=f"{program} is not on this machine"):
            TARGETS[name].home()


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["python", "-P", "-m", "proxy.worker"], "worker"),
        (["python", "-P", "-m", "proxy.recorder"], "recorder"),
        (["python", "-P", "-m", "proxy.shipper"], "shipper"),
        (["python", "-P", "-m", "consumer.service"], "consumer"),
        (["python", "-m", "clearpane.cli", "proxy"], "other"),
        (["python", "-m", "proxy.workers_of_another_kind"], "other"),
        (["java", "-cp", "libs/*", "kafka.Kafka", "server.properties"], "broker"),
        (["nginx", "-c", "nginx.conf"], "other"),
    ],
)
def test_role_of_a_process(command: list[str], role: str) -> None:
    assert processes.role_of(b"".join(word.encode() + b"\0" for word in command)) == role


def test_every_role_is_a_module_that_is_started_somewhere() -> None:
    """A module that was renamed would be counted as `other`, and the worker's figures as those of all processes."""
    root = BENCH.parent
    for module in processes.ROLES:
        path = root / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file() or (path / "service.py").is_file()


def test_the_document_has_the_marks_of_both_tables() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    for name in ("comparison", "faults"):
        assert page.count(f"<!-- {name}: begin -->") == page.count(f"<!-- {name}: end -->") == 1
