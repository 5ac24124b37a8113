"""docs/money.md against the code: the overlay that it shows is one, and no source, rate or column is missing."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consumer.derive import PriceBook
from consumer.derive.cost import Charge
from consumer.derive.overlay import RATES, parse
from consumer.derive.sheet import TOOLS
from consumer.derive.usage import Leaves

PAGE = (Path(__file__).parents[3] / "docs" / "money.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
BOOK = PriceBook()


@pytest.mark.parametrize(
    ("provider", "model", "more", "total"),
    [
        ("openai", "gpt-4o", {}, "10.9375"),  # (2.5 + 10) * 0.875
        ("openai", "ft:gpt-4o-2024-08-06:acme:x", {}, "18.75"),
        ("azure", "prod-chat", {}, "12.5"),
        ("vllm", "llama", {"upstream": "gpu-7"}, "0.4"),
        ("openai", "gpt-4o", {"region": "eu"}, "13.75"),
    ],
)
def test_the_overlay_that_is_shown_does_what_is_said(provider: str, model: str, more: dict[str, object], total: str) -> None:
    book = PriceBook(parse(SHOWN.encode(), "shown", BOOK.knows))
    charge = Charge(**{"provider": provider, "model": model, "at": datetime(2026, 11, 20, tzinfo=UTC), **more})  # type: ignore[arg-type]
    cost = book.price(Leaves(input_tokens=1_000_000, output_tokens=1_000_000), charge)
    assert (cost.source, str(cost.record()["total"])) == ("overlay", total)


def test_every_rate_and_source_is_named() -> None:
    for name in (*RATES, *TOOLS, "provider", "overlay", "book", "assumed", "unknown", "cost_recorded", "price_version_recorded"):
        assert f"`{name}`" in PAGE, name
