"""`clearpane config`, and every start, tells all that is wrong at once: the price overlay's mistakes too."""

import dataclasses
from pathlib import Path

import pytest

from clearpane.cli import EXIT_CONFIGURATION, _main
from clearpane.cli.stack import Stack
from clearpane.settings import Settings, SettingsError

OVERLAY = """
[[price]]
provider = "openai"
rates = { input = -1, tokens = 2 }

[[price]]
model = "x"
priced_as = "openai/no-such-model"
"""
EXPECTED = ["price 1: rates.tokens", "price 1: rates.input", "price 2: priced_as", "include_usage: 'nobody'"]


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    file = tmp_path / "prices.toml"
    file.write_text(OVERLAY, encoding="utf-8")
    return file


def test_config_tells_all_problems_of_the_overlay_at_once(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = overlay.with_name("clearpane.toml")
    file.write_text(f'price_overlay = "{overlay}"\ninclude_usage = ["nobody", "openai", "default"]\n', encoding="utf-8")
    assert _main(["--config", str(file), "config"]) == EXIT_CONFIGURATION
    told = capsys.readouterr().err
    assert [text for text in EXPECTED if text not in told] == []
    assert "openai'" not in told


def test_config_tells_that_the_overlay_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "clearpane.toml"
    file.write_text(f'price_overlay = "{tmp_path / "missing.toml"}"\n', encoding="utf-8")
    assert _main(["--config", str(file), "config"]) == EXIT_CONFIGURATION
    assert "missing.toml: cannot be read" in capsys.readouterr().err


def test_config_prints_what_is_fine(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay.write_text('[[price]]\nprovider = "openai"\ndiscount_percent = 5\n', encoding="utf-8")
    file = overlay.with_name("clearpane.toml")
    file.write_text(f'price_overlay = "{overlay}"\ninclude_usage = ["gpu"]\nupstream = {{ gpu = "http://gpu.test" }}\n', encoding="utf-8")
    assert _main(["--config", str(file), "config"]) == 0
    assert 'include_usage = ["gpu"]' in capsys.readouterr().out


@pytest.mark.parametrize(("proxy", "consumer"), [(False, True), (True, True)])
def test_no_part_starts_with_problems(proxy: bool, consumer: bool, overlay: Path) -> None:
    settings = Settings(
        price_overlay=overlay, include_usage=("nobody",), intake="127.0.0.1:0", lake=str(overlay.parent), data=overlay.parent
    )
    with pytest.raises(SettingsError) as raised:
        Stack(settings, proxy=proxy, consumer=consumer)
    assert [text for text in EXPECTED if text not in str(raised.value)] == []


def test_a_proxy_alone_starts_with_an_overlay_that_it_never_reads(overlay: Path) -> None:
    settings = Settings(price_overlay=overlay, intake="http://127.0.0.1:0", data=overlay.parent)
    Stack(settings, proxy=True, consumer=False)
    with pytest.raises(SettingsError, match="include_usage: 'nobody'"):
        Stack(dataclasses.replace(settings, include_usage=("nobody",)), proxy=True, consumer=False)
