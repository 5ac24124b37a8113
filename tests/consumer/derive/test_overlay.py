"""The overlay: whose price counts, from when to when, and every mistake in the file told at once."""

import asyncio
import contextlib
import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.settings import Settings
from consumer import service
from consumer.derive import PriceBook, derive, prepare
from consumer.derive.cost import Charge
from consumer.derive.overlay import PRICES_MAX, BadOverlay, Overlay, parse
from consumer.derive.usage import Leaves

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
TEN = Leaves(input_tokens=10, output_tokens=10)
BOOK = PriceBook()


def book(text: str) -> PriceBook:
    return PriceBook(parse(text.encode(), "prices.toml", BOOK.knows))


def charge(provider: str | None, model: str | None, **more: Any) -> Charge:
    return Charge(**{"provider": provider, "model": model, "at": AT, **more})


def test_a_discount_is_taken_from_the_books_price_on_every_tier() -> None:
    discounted = book('[[price]]\nprovider = "openai"\ndiscount_percent = 12.5')
    cost = discounted.price(TEN, charge("openai", "gpt-4o"))
    assert (cost.source, cost.priced_as, cost.rates["input_tokens"]) == ("overlay", "overlay price 1: openai/gpt-4o", Decimal("2.1875"))
    assert discounted.price(TEN, charge("openai", "gpt-5", service_tier="flex")).rates["output_tokens"] == Decimal("4.375")
    assert discounted.price(TEN, charge("anthropic", "claude-sonnet-4-5")).source == "book"
    assert discounted.price(TEN, charge("openai", "nobody-knows")).reason == "no price for model nobody-knows at provider openai"


def test_a_discount_counts_for_tools_too() -> None:
    search = charge("openai", "gpt-4o", web_searches=2)
    assert book('[[price]]\nmodel = "gpt-4o"\ndiscount_percent = 50').price(TEN, search).tools == Decimal("0.01")


def test_a_price_of_searches_alone_leaves_the_tokens_to_the_book() -> None:
    search = charge("openai", "gpt-4o", web_searches=2)
    cost = book('[[price]]\nmodel = "gpt-4o"\nrates = { web_searches = 5 }').price(TEN, search)
    assert (cost.source, cost.tools, cost.rates["input_tokens"]) == ("overlay", Decimal("0.01"), Decimal("2.5"))


def test_a_price_of_searches_alone_leaves_what_is_billed_by_the_second_to_the_book() -> None:
    spoken = charge("groq", "whisper-large-v3", units={"audio_seconds": Decimal(3600)})
    listed = BOOK.price(Leaves(), spoken)
    cost = book('[[price]]\nprovider = "groq"\nrates = { web_searches = 5 }').price(Leaves(), spoken)
    assert listed.total is not None
    assert (cost.source, cost.total, cost.reason) == ("overlay", listed.total, None)


FINE_TUNED = """
[[price]]
provider = "openai"
model = "ft:gpt-4o-2024-08-06:acme:*"
rates = { input = 3.75, cache_read = "1.875", output = 15 }
"""


def test_a_fine_tuned_model_at_fixed_rates() -> None:
    leaves = Leaves(input_tokens=400_000, cache_read_tokens=600_000, reasoning_tokens=1_000_000)
    cost = book(FINE_TUNED).price(leaves, charge("openai", "ft:gpt-4o-2024-08-06:acme:support:9x"))
    # 0.4 * 3.75 + 0.6 * 1.875 = 2.625; reasoning costs what output does.
    assert (cost.source, cost.input, cost.output, cost.total) == ("overlay", Decimal("2.625"), Decimal(15), Decimal("17.625"))
    audio = book(FINE_TUNED).price(Leaves(input_audio_tokens=1), charge("openai", "ft:gpt-4o-2024-08-06:acme:support:9x"))
    assert audio.reason == "no price for input_audio_tokens of model ft:gpt-4o-2024-08-06:acme:support:9x at openai"


def test_a_fixed_rate_is_that_of_the_standard_tier_unless_it_names_another() -> None:
    flex = charge("openai", "gpt-5", service_tier="flex", said_by={"service_tier": "answer"})
    assert book('[[price]]\nmodel = "gpt-5"\nrates = { input = 1, output = 2 }').price(TEN, flex).source == "book"
    named = book('[[price]]\nmodel = "gpt-5"\nservice_tier = "flex"\nrates = { input = 1, output = 2 }').price(TEN, flex)
    assert (named.source, named.record()["variant"], named.variant_source) == ("overlay", "service_tier=flex", {"service_tier": "answer"})


def test_an_azure_deployment_is_priced_as_its_model() -> None:
    named = book('[[price]]\nprovider = "azure"\nmodel = "prod-chat"\npriced_as = "azure/gpt-4o"\ndiscount_percent = 10')
    cost = named.price(TEN, charge("azure", "prod-chat"))
    assert (cost.priced_as, cost.rates["input_tokens"]) == ("overlay price 1: azure/gpt-4o", Decimal("2.25"))
    assert cost.source == "overlay"


SELF_HOSTED = """
[[price]]
upstream = "gpu-7"
model = "*"
rates = { input = 0.2, output = 0.2 }
[[price]]
provider = "ollama"
rates = { input = 0, output = 0 }
"""


def test_a_self_hosted_model_at_a_rate_of_its_own_and_one_that_is_free() -> None:
    hosted = book(SELF_HOSTED)
    assert hosted.price(TEN, charge("vllm", "llama-3.1-8b", upstream="gpu-7")).total == Decimal("0.000004")
    free = hosted.price(TEN, charge("ollama", "llama3"))
    assert (free.source, free.total) == ("overlay", Decimal(0))
    assert hosted.price(TEN, charge("vllm", "llama-3.1-8b")).reason == "vllm is self-hosted: no price"


def test_a_region_that_the_book_has_no_price_for() -> None:
    regional = book('[[price]]\nprovider = "openai"\nregion = "eu"\nsurcharge_percent = 10')
    cost = regional.price(TEN, charge("openai", "gpt-5.4", region="eu", said_by={"region": "url"}))
    assert cost.total == BOOK.price(TEN, charge("openai", "gpt-5.4")).total * Decimal("1.1")  # type: ignore[operator]
    assert (cost.record()["variant"], cost.variant_source) == ("region=eu", {"region": "url"})


@pytest.mark.parametrize(
    ("at", "rate"),
    [("2025-12-31T23:59:59", "2.5"), ("2026-01-01T00:00:00", "2"), ("2026-06-30T23:59:59", "2"), ("2026-07-01T00:00:00", "2.5")],
)
def test_a_contract_counts_from_its_first_day_to_before_its_last(at: str, rate: str) -> None:
    contract = book('[[price]]\nmodel = "gpt-4o"\nfrom = 2026-01-01\nuntil = 2026-07-01\ndiscount_percent = 20')
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert contract.price(TEN, charge("openai", "gpt-4o", at=moment)).rates["input_tokens"] == Decimal(rate)


def test_the_first_that_fits_counts() -> None:
    two = book('[[price]]\nmodel = "gpt-4o"\nrates = { input = 1, output = 1 }\n[[price]]\nprovider = "openai"\ndiscount_percent = 50')
    assert two.price(TEN, charge("openai", "gpt-4o")).rates["input_tokens"] == Decimal(1)
    assert two.price(TEN, charge("openai", "gpt-4o-mini")).priced_as == "overlay price 2: openai/gpt-4o-mini"


def test_its_digest_stands_on_every_price_and_can_be_checked_with_sha256sum() -> None:
    text = '[[price]]\nmodel = "x"\nrates = { input = 1 }\n'
    version = f"{BOOK.version} + overlay {hashlib.sha256(text.encode()).hexdigest()[:12]}"
    assert book(text).price(TEN, charge("openai", "gpt-4o")).price_version == version
    assert book(text).price(TEN, charge("openai", "nobody-knows")).price_version == version


def test_a_record_is_priced_by_the_overlay_of_the_settings(make: Any, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('[[price]]\nupstream = "openai"\ndiscount_percent = 100\n')
    answer = {"model": "gpt-4o", "choices": [{"index": 0, "finish_reason": "stop"}], "usage": {"prompt_tokens": 10, "completion_tokens": 1}}
    cost = derive(make(answer), prepare(file))["cost"]
    assert (cost["source"], cost["total"], cost["priced_as"]) == ("overlay", "0", "overlay price 1: openai/gpt-4o")


WRONG = """
prices = 1
[[price]]
[[price]]
model = ""
rates = { inputs = 1, output = -1, cache_read = "x", reasoning = 1e-30 }
discount_percent = 120
[[price]]
provider = 7
until = "2026-01-01"
colour = "blue"
priced_as = "openai/gpt-none"
[[price]]
model = "a"
from = 2026-02-01
until = 2026-01-01
rates = {}
"""


def test_every_mistake_is_told_at_once_with_what_to_do() -> None:
    with pytest.raises(BadOverlay) as raised:
        book(WRONG)
    told = raised.value.problems
    for part in (
        "prices.toml: prices: not known here; prices stand under [[price]]",
        "price 1: model: missing; say whose price it is by model, upstream or provider",
        "price 1: rates: missing; say what it costs by one of rates, priced_as, discount_percent, surcharge_percent",
        "price 2: model: needs a text that is not empty",
        "price 2: rates: cannot stand beside discount_percent; leave one out",
        "price 2: rates.inputs: not known here; known are input, ",
        "price 2: rates.output: needs a number, 0 to 1000000",
        "price 2: rates.cache_read: needs a number",
        "price 2: rates.reasoning: needs a number",
        "price 2: discount_percent: needs a number, 0 to 100",
        "price 3: provider: needs a text that is not empty",
        "price 3: until: needs a date without quotes, as 2026-01-31",
        "price 3: colour: not known here; known are provider, upstream, ",
        "price 3: priced_as: needs a model of the price book as provider/model, as openai/gpt-4o",
        "price 4: until: needs a date after `from`",
        "price 4: rates: needs USD per million tokens by kind",
    ):
        assert [line for line in told if line.startswith("prices.toml") and part in line], part
    assert len(told) == 16


@pytest.mark.parametrize("text", ["[[price]", "price = 3", "[price]\nmodel = 'x'", "\x00", "[[price]]\n" * (PRICES_MAX + 1)])
def test_a_file_that_cannot_be_taken_apart_says_so(text: str) -> None:
    with pytest.raises(BadOverlay, match=r"prices\.toml"):
        book(text)


def test_a_file_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(BadOverlay, match="`price_overlay` names the file"):
        prepare(tmp_path / "none.toml")


async def test_the_consumer_does_not_start_with_a_mistake_in_it(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text("[[price]]\n")
    settings = Settings(lake=str(tmp_path / "lake"), intake="127.0.0.1:0", price_overlay=file)
    with pytest.raises(BadOverlay) as raised:
        await service.run(settings, asyncio.Event().wait())
    assert len(raised.value.problems) == 2


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"[[price]]\n{text}".encode()))
def test_garbage_raises_only_our_error(data: bytes) -> None:
    with contextlib.suppress(BadOverlay):
        assert isinstance(parse(data, "f", lambda name: True), Overlay)
