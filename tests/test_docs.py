"""The documents say what there is: every setting, header, metric, end and reason."""

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from clearpane import cli
from clearpane.cli.configure import table
from clearpane.contract import controls, envelope
from proxy.upstream import faults

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_table_of_settings_is_the_settings() -> None:
    assert "\n".join(table()) in text("settings.md"), "print it anew: clearpane config --docs"


def test_every_header_is_described() -> None:
    described = text("headers.md").lower()
    for control in controls.CONTROLS:
        assert f"`clearpane-{control.name}`" in described
    for name in (controls.ID_HEADER, controls.IGNORED_HEADER, controls.TIMING_HEADER, "Clearpane-Property-<Name>", "Clearpane-Error"):
        assert f"`{name.lower()}`" in described


def metrics() -> dict[str, str]:
    found = {}
    for module in ("proxy.metrics", "proxy.shipper.metrics", "consumer.metrics"):
        for value in vars(importlib.import_module(module)).values():
            if hasattr(value, "describe") and hasattr(value, "_documentation"):
                name = value._name + ("_total" if type(value).__name__ == "Counter" else "")
                found[name] = value._documentation
    return found


@pytest.mark.parametrize("name", sorted(metrics()))
def test_every_metric_is_described(name: str) -> None:
    assert f"| `{name}` | {metrics()[name]} |" in text("metrics.md")


def test_no_metric_is_described_that_does_not_exist() -> None:
    assert set(re.findall(r"^\| `(clearpane_\w+)` ", text("metrics.md"), re.MULTILINE)) == set(metrics())


def test_every_end_and_reason_is_described() -> None:
    described = text("life-of-a-call.md")
    for end in get_args(envelope.End):
        assert f"| `{end}` |" in described
    for fault in (faults.ConnectFailed, faults.ConnectTimeout, faults.ReadTimeout, faults.Broken, faults.Malformed):
        assert f"`{fault.reason}`" in described
    source = (ROOT / "proxy/server.py").read_text(encoding="utf-8")
    for reason in re.findall(r'BadRequest\(\s*\d+, "(\w+)"', source):
        assert f"`{reason}`" in described


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from flags(below)
        else:
            yield from (name for name in action.option_strings if name.startswith("--"))


@pytest.mark.parametrize("command", ["spool", "reconcile", "index", "retention"])
def test_every_flag_of_an_operation_is_described(command: str) -> None:
    described = text("operations.md")
    assert f"clearpane {command} " in described
    parser = cli._parser([command])
    found = set(flags(parser)) - {"--help", "--version", "--config"}
    assert found
    assert not [name for name in sorted(found) if not re.search(rf"{name}\b(?!-)", described)]


def test_every_relative_link_leads_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
