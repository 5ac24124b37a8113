"""The price book against genai-prices' own calculation, and where it says nothing rather than something wrong."""

import socket
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.derive.cost import Charge, plain
from consumer.derive.prices import PriceBook
from consumer.derive.usage import Leaves

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
BOOK = PriceBook()
MODELS = [
    ("openai", "openai", "gpt-4o-2024-08-06"),
    ("openai", "openai", "gpt-5.4"),
    ("azure", "azure", "gpt-4o"),
    ("anthropic", "anthropic", "claude-sonnet-4-5-20250929"),
    ("google", "google", "gemini-2.5-flash"),
    ("gemini", "google", "gemini-2.0-flash"),
    ("groq", "groq", "llama-3.3-70b-versatile"),
    ("xai", "x-ai", "grok-3-mini"),
    ("deepseek", "deepseek", "deepseek-chat"),
]
COUNTS = st.integers(0, 400_000)


@given(
    st.sampled_from(MODELS),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens", "reasoning_tokens"),
            COUNTS,
        ),
    ),
)
def test_every_leaf_is_priced_as_genai_prices_prices_it(model: tuple[str, str, str], counts: dict[str, int]) -> None:
    ours, theirs, name = model
    leaves = Leaves(**counts)
    cost = BOOK.price(leaves, Charge(provider=ours, model=name, at=AT))
    written = {"cache_write_5m_tokens": leaves.cache_write_5m_tokens, "cache_write_1h_tokens": leaves.cache_write_1h_tokens}
    usage = genai_prices.Usage(
        input_tokens=leaves.total_input,
        cache_read_tokens=leaves.cache_read_tokens,
        cache_write_tokens=sum(written.values()),
        **written,
        output_tokens=leaves.total_output,
        output_reasoning_tokens=leaves.reasoning_tokens,
    )
    expected = genai_prices.calc_price(usage, name, provider_id=theirs, genai_request_timestamp=AT)
    assert (cost.input, cost.output, cost.total) == (expected.input_price, expected.output_price, expected.total_price)


@given(st.sampled_from(MODELS), COUNTS, COUNTS)
def test_the_parts_are_the_whole_to_the_last_digit(model: tuple[str, str, str], given_tokens: int, made: int) -> None:
    cost = BOOK.price(Leaves(input_tokens=given_tokens, output_tokens=made), Charge(provider=model[0], model=model[2], at=AT))
    assert cost.input is not None
    assert cost.output is not None
    assert cost.total == cost.input + cost.output


def charge(provider: str | None, model: str | None, **more: object) -> Charge:
    return Charge(provider=provider, model=model, at=AT, **more)  # type: ignore[arg-type]


TEN = Leaves(input_tokens=10, output_tokens=10)


@pytest.mark.parametrize(
    ("model", "priced_as"),
    [("gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini"), ("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"), ("grok-3", "x-ai/grok-3")],
)
def test_behind_an_unknown_upstream_a_model_is_priced_at_its_makers_and_that_is_said(model: str, priced_as: str) -> None:
    cost = PriceBook().price(TEN, charge(None, model))
    assert (cost.source, cost.priced_as) == ("assumed", priced_as)
    assert cost.total is not None


@pytest.mark.parametrize(
    ("asked", "leaves", "reason"),
    [
        (charge(None, "gpt-oss-120b"), TEN, "no provider is known for this upstream, and model gpt-oss-120b tells none"),
        (charge(None, "deepseek-chat"), TEN, "no provider is known for this upstream, and model deepseek-chat tells none"),
        (charge(None, "llama-3.1-8b"), TEN, "no provider is known for this upstream, and model llama-3.1-8b tells none"),
        (charge("vllm", "gpt-4o"), TEN, "vllm is self-hosted: no price"),
        (charge("openai", None), TEN, "no model is known"),
        (charge("nobody", "gpt-4o"), TEN, "no price for model gpt-4o at provider nobody"),
        (charge("openai", "ft:gpt-4o:acme"), TEN, "no price for model ft:gpt-4o:acme at provider openai"),
        (charge("openai", "gpt-4o", service_tier="scale"), TEN, "no price for service_tier=scale of model gpt-4o at openai"),
        (charge("azure", "gpt-4o", service_tier="priority"), TEN, "no price for service_tier=priority of model gpt-4o at azure"),
        (
            charge("anthropic", "claude-sonnet-4-5", service_tier="priority"),
            TEN,
            "no price for service_tier=priority of model claude-sonnet-4-5 at anthropic",
        ),
        (
            charge("openai", "gpt-5.4", region="eu"),
            TEN,
            "no price for region eu of model gpt-5.4 at openai: a price overlay can state it",
        ),
        (charge("openai", "text-embedding-3-small"), TEN, "no price for output_tokens of model text-embedding-3-small at openai"),
        (charge("openai", "gpt-4o"), Leaves(output_audio_tokens=1), "no price for output_audio_tokens of model gpt-4o at openai"),
        (charge("openai", "whisper-1"), TEN, "no token price for model whisper-1 at openai"),
        (
            charge("groq", "llama-3.3-70b-versatile", web_searches=1),
            TEN,
            "no price for web searches of model llama-3.3-70b-versatile at groq",
        ),
    ],
)
def test_no_price_says_why(asked: Charge, leaves: Leaves, reason: str) -> None:
    cost = BOOK.price(leaves, asked)
    assert (cost.source, cost.reason) == ("unknown", reason)
    assert (cost.input, cost.output, cost.tools, cost.total) == (None, None, None, None)


def test_a_tier_priced_only_from_a_date_on_is_unknown_before_it() -> None:
    """The standard price, which genai-prices would answer with, would be wrong by a factor of two."""
    early = Charge(provider="openai", model="gpt-5", at=datetime(2026, 1, 1, tzinfo=UTC), service_tier="flex")
    assert BOOK.price(TEN, early).reason == "no price for service_tier=flex of model gpt-5 at openai"
    late = BOOK.price(TEN, Charge(provider="openai", model="gpt-5", at=AT, service_tier="flex"))
    assert (late.variants, late.rates["output_tokens"]) == ({"service_tier": "flex"}, Decimal(5))


@pytest.mark.parametrize(("cached", "rate"), [(99_999, "3"), (100_000, "3"), (100_001, "6")])
def test_the_long_context_price_begins_above_its_start_and_counts_cached_tokens(cached: int, rate: str) -> None:
    cost = BOOK.price(Leaves(input_tokens=100_000, cache_read_tokens=cached), charge("anthropic", "claude-sonnet-4-5"))
    assert cost.rates["input_tokens"] == Decimal(rate)


def test_fast_mode_has_its_own_price() -> None:
    cost = BOOK.price(TEN, charge("anthropic", "claude-opus-4-8", speed="fast"))
    assert (cost.variants, cost.rates) == ({"speed": "fast"}, {"input_tokens": Decimal(10), "output_tokens": Decimal(50)})


def test_a_price_of_its_date() -> None:
    """claude-opus-4-6 lost its long-context surcharge on 2026-03-13."""
    long = Leaves(input_tokens=200_001)
    before = BOOK.price(long, Charge(provider="anthropic", model="claude-opus-4-6", at=datetime(2026, 3, 12, tzinfo=UTC)))
    after = BOOK.price(long, Charge(provider="anthropic", model="claude-opus-4-6", at=AT))
    assert (before.rates["input_tokens"], after.rates["input_tokens"]) == (Decimal(10), Decimal(5))


def test_the_decimal_context_of_the_caller_does_not_matter_within_a_real_call() -> None:
    with localcontext(prec=20):
        cost = BOOK.price(Leaves(input_tokens=123_457), charge("openai", "gpt-4o-mini"))
    assert cost.total == Decimal("0.01851855")


def test_version_and_name_stand_on_the_cost() -> None:
    cost = BOOK.price(TEN, charge("openai", "gpt-4o-2024-08-06"))
    assert (cost.price_version, cost.priced_as) == (f"genai-prices {genai_prices.__version__}", "openai/gpt-4o")


def test_the_date_of_the_book_that_is_installed_is_known() -> None:
    """Fails with a new genai-prices: add the day of its publication to `_PUBLISHED`."""
    assert BOOK.date is not None
    assert BOOK.price(TEN, charge("openai", "gpt-4o")).record()["price_date"] == date.fromisoformat(BOOK.date).isoformat()


@pytest.mark.parametrize(
    ("tier", "variant", "source", "rates"),
    [
        (None, None, None, {"input_tokens": "1.25", "output_tokens": "10"}),
        ("default", None, None, {"input_tokens": "1.25", "output_tokens": "10"}),
        ("flex", "service_tier=flex", "answer", {"input_tokens": "0.625", "output_tokens": "5"}),
        ("priority", "service_tier=priority", "answer", {"input_tokens": "2.5", "output_tokens": "20"}),
        ("batch", "processing=batch", "answer", {"input_tokens": "0.625", "output_tokens": "5"}),
    ],
)
def test_flex_priority_and_batch_have_their_own_prices(tier: str | None, variant: str, source: str, rates: dict[str, str]) -> None:
    """gpt-5 by OpenAI's price list: 1.25 and 10; half of it for flex and batch, twice for priority."""
    record = BOOK.price(TEN, charge("openai", "gpt-5", service_tier=tier, said_by={"service_tier": "answer"})).record()
    assert (record["variant"], record["rates"]) == (variant, rates)
    assert record["variant_source"] == ({variant.partition("=")[0]: source} if variant else None)


def test_cached_tokens_are_priced_once() -> None:
    """1,000 input tokens of which 600 are cached: 400 at 2.5, 600 at 1.25, not 1,000 at 2.5 as well."""
    cost = BOOK.price(Leaves(input_tokens=400, cache_read_tokens=600), charge("openai", "gpt-4o"))
    assert cost.input == Decimal("0.00175")


def test_the_long_context_price_names_itself() -> None:
    record = BOOK.price(Leaves(input_tokens=100_000, cache_read_tokens=200_000), charge("openai", "gpt-5.4")).record()
    assert (record["variant"], record["variant_source"]) == ("input_tokens>272000", {"input_tokens": "usage"})
    assert BOOK.price(TEN, charge("openai", "gpt-5.4")).record()["variant"] is None


@pytest.mark.parametrize(
    ("provider", "model", "region", "factor"),
    [
        ("anthropic", "claude-opus-4-8", "us", "1.1"),
        ("vertex", "claude-sonnet-4-5", "europe-west1", "1.1"),
        ("vertex", "claude-opus-4-5@20251101", "us-east5", "1.1"),
        ("vertex", "claude-opus-4-1", "us-east5", "1"),
        ("vertex", "claude-3-5-haiku", "us-east5", "1"),
    ],
)
def test_a_region_with_a_surcharge(provider: str, model: str, region: str, factor: str) -> None:
    found = BOOK.price(TEN, charge(provider, model, region=region, said_by={"region": "url"}))
    plainly = BOOK.price(TEN, charge(provider, model))
    assert found.total is not None
    assert plainly.total is not None
    assert found.total == plainly.total * Decimal(factor)
    assert (found.record()["variant"], found.variant_source) == (f"region={region}", {"region": "url"})


def test_the_book_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a price book must not connect")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert PriceBook().price(TEN, charge("openai", "gpt-4o")).source == "book"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "0"),
        ("0E-9", "0"),
        ("0.00250", "0.0025"),
        ("8.6E-5", "0.000086"),
        ("1200", "1200"),
        ("1E+3", "1000"),
        ("1.2345678901234567E-10", "0.000000000123456789"),
    ],
)
def test_amounts_are_plain_decimals_that_the_column_holds(amount: str, shown: str) -> None:
    assert plain(Decimal(amount)) == shown
