"""The price book: leaves and a model -> cost in USD, in decimals. Prices are those of the installed genai-prices; no network.

What it cannot price is null with a reason: an unknown model, a tier or modality without a price of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import genai_prices
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from consumer.derive.usage import INPUT, Leaves

CURRENCY = "USD"
COST_MAX = Decimal(10) ** 12  # a stated cost above it is no cost
_MILLION, _THOUSAND = Decimal(10) ** 6, Decimal(10) ** 3
_SMALLEST = Decimal(1).scaleb(-18)  # what the index's column holds

# Our names of providers -> the book's.
_PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "google",
    "gemini": "google",
    "vertex": "google",
    "azure": "azure",
    "aws": "aws",
    "bedrock": "aws",
    "mistral": "mistral",
    "groq": "groq",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
    "together": "together",
    "fireworks": "fireworks",
    "xai": "x-ai",
    "cohere": "cohere",
    "cerebras": "cerebras",
    "perplexity": "perplexity",
    "voyage": "voyageai",
    "moonshot": "moonshotai",
    "zai": "zai",
}
_SELF_HOSTED = {"ollama", "vllm"}
# Who makes models that nobody else may serve at a price of his own. Behind an upstream of unknown provider (a gateway of
# the company's, say) such a model is priced at its maker's, and the record says that this was assumed.
_MAKERS = ("openai", "anthropic", "google", "x-ai")
_OPEN_WEIGHTS = ("gpt-oss", "gemma")  # of these makers, but served by others too

# Leaf -> the book's price keys, the first that has a price counts.
_KEYS = {
    "input_tokens": ("input_mtok",),
    "cache_read_tokens": ("cache_read_mtok", "input_mtok"),
    "cache_read_audio_tokens": ("cache_audio_read_mtok", "cache_read_mtok", "input_mtok"),
    "cache_write_5m_tokens": ("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
    "cache_write_1h_tokens": ("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
    "input_audio_tokens": ("input_audio_mtok",),
    "input_image_tokens": ("input_image_mtok", "input_mtok"),
    "output_tokens": ("output_mtok",),
    "reasoning_tokens": ("output_reasoning_mtok", "output_mtok"),
    "output_audio_tokens": ("output_audio_mtok",),
    "output_image_tokens": ("output_image_mtok",),
}
_STANDARD_TIERS = {None, "", "default", "standard", "auto", "on_demand", "standard_only"}


class Unpriced(Exception):
    """Why there is no cost, in words for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a call used, apart from its tokens, that its price depends on."""

    provider: str | None
    model: str | None
    at: datetime
    service_tier: str | None = None
    speed: str | None = None
    region: str | None = None  # where the provider charges for it
    web_searches: int = 0
    file_searches: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """USD. `total` is input, output and tools together; all null, with a reason, when unknown."""

    source: str  # provider, book, assumed (by the book, the provider guessed from the model's name), unknown
    input: Decimal | None = None
    output: Decimal | None = None
    tools: Decimal | None = None
    total: Decimal | None = None
    reason: str | None = None
    price_version: str | None = None
    priced_as: str | None = None  # the model's name in the book
    variant: str | None = None
    rates: Mapping[str, Decimal] = field(default_factory=dict)  # by leaf, USD per million tokens

    def record(self) -> dict[str, Any]:
        return {
            "input": plain(self.input),
            "output": plain(self.output),
            "tools": plain(self.tools),
            "total": plain(self.total),
            "currency": CURRENCY,
            "source": self.source,
            "reason": self.reason,
            "price_version": self.price_version,
            "priced_as": self.priced_as,
            "variant": self.variant,
            "rates": {leaf: plain(rate) for leaf, rate in self.rates.items()},
        }


def unknown(reason: str) -> Cost:
    return Cost(source="unknown", reason=reason)


def plain(amount: Decimal | None) -> str | None:
    """A decimal string without exponent, at most 18 places."""
    if amount is None:
        return None
    shown = format(amount if amount.as_tuple().exponent >= -18 else amount.quantize(_SMALLEST), "f")  # type: ignore[operator]
    return (shown.rstrip("0").rstrip(".") or "0") if "." in shown else shown


class PriceBook:
    """Loading takes most of a second: make one and keep it."""

    def __init__(self) -> None:
        self._providers = data_snapshot.get_snapshot().providers
        self.version = f"genai-prices {genai_prices.__version__}"
        self._find = lru_cache(maxsize=4096)(self._search)

    def price(self, leaves: Leaves, charge: Charge) -> Cost:
        """Never raises: what has no price is a cost with a reason."""
        try:
            return self._price(leaves, charge)
        except Unpriced as error:
            return Cost(source="unknown", reason=str(error), price_version=self.version)

    def _price(self, leaves: Leaves, charge: Charge) -> Cost:
        provider, model = self._model(charge)
        if charge.region is not None:
            raise Unpriced(f"no price for region {charge.region}")
        context = _context(charge)
        if context and not _has_variant(provider, model, context, charge.at):
            raise Unpriced(f"no price for {'='.join(*context.items())} of model {charge.model} at {charge.provider}")
        prices = model.get_prices(charge.at, context or None)
        if prices.__dict__.get("input_mtok") is None:
            raise Unpriced(f"no token price for model {charge.model} at {charge.provider}")
        return self._bill(leaves, charge, provider, model, prices, context)

    def _bill(
        self, leaves: Leaves, charge: Charge, provider: Provider, model: ModelInfo, prices: ModelPrice, context: dict[str, str]
    ) -> Cost:
        rates = self._rates(leaves, charge, provider, prices)
        given = sum((rate * getattr(leaves, leaf) for leaf, rate in rates.items() if leaf in INPUT), Decimal(0)) / _MILLION
        made = sum((rate * getattr(leaves, leaf) for leaf, rate in rates.items() if leaf not in INPUT), Decimal(0)) / _MILLION
        tools = _tools(prices, charge)
        return Cost(
            source="book" if charge.provider else "assumed",
            input=given,
            output=made,
            tools=tools,
            total=given + made + tools,
            price_version=self.version,
            priced_as=f"{provider.id}/{model.id}",
            variant="=".join(*context.items()) if context else None,
            rates=rates,
        )

    def _rates(self, leaves: Leaves, charge: Charge, provider: Provider, prices: ModelPrice) -> dict[str, Decimal]:
        """USD per million tokens of every leaf that holds any. A leaf without a price leaves the call without a cost."""
        rates: dict[str, Decimal] = {}
        total_input = leaves.total_input
        for leaf, keys in _KEYS.items():
            if getattr(leaves, leaf) == 0:
                continue
            rate = _rate(prices, keys, total_input)
            if rate is None and leaf == "input_audio_tokens" and provider.id == "google":
                rate = _rate(prices, ("input_mtok",), total_input)  # Google names audio only where it costs more than text
            if rate is None:
                raise Unpriced(f"no price for {leaf} of model {charge.model} at {charge.provider}")
            rates[leaf] = rate
        return rates

    def _model(self, charge: Charge) -> tuple[Provider, ModelInfo]:
        if charge.provider in _SELF_HOSTED:
            raise Unpriced(f"{charge.provider} is self-hosted: no price")
        if charge.model is None:
            raise Unpriced("no model is known")
        if charge.provider is None:
            return self._made_by(charge.model)
        known = _PROVIDERS.get(charge.provider)
        found = self._find(known, charge.model) if known else None
        if found is None:
            raise Unpriced(f"no price for model {charge.model} at provider {charge.provider}")
        return found

    def _made_by(self, model: str) -> tuple[Provider, ModelInfo]:
        makers = () if model.startswith(_OPEN_WEIGHTS) else _MAKERS
        found = [known for maker in makers if (known := self._find(maker, model)) and known[1] in known[0].models]
        if len(found) > 1:  # Google resells Claude
            found = [(maker, info) for maker, info in found if maker.model_match is not None and maker.model_match.is_match(model)]
        if len(found) != 1:
            raise Unpriced(f"no provider is known for this upstream, and model {model} tells none")
        return found[0]

    def _search(self, provider_id: str, model: str) -> tuple[Provider, ModelInfo] | None:
        provider = next((each for each in self._providers if each.id == provider_id), None)
        info = provider.find_model(model, all_providers=self._providers) if provider else None
        return (provider, info) if provider and info else None


def _context(charge: Charge) -> dict[str, str]:
    """What the book calls the variant; empty for the standard price."""
    tier = (charge.service_tier or "").lower()
    if tier == "batch":
        return {"processing": "batch"}
    if tier not in _STANDARD_TIERS:
        return {"service_tier": tier}
    return {"speed": charge.speed} if charge.speed not in (None, "standard") else {}


def _has_variant(provider: Provider, model: ModelInfo, context: dict[str, str], at: datetime) -> bool:
    """genai-prices answers with the standard price when it knows no such variant; a model found at a fallback provider has none."""
    return any(model is own for own in provider.models) and any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(at)) for variant in model.price_variants or ()
    )


def _rate(prices: ModelPrice, keys: tuple[str, ...], total_input: int) -> Decimal | None:
    """A tier's price counts for all tokens of a call whose input is above its start."""
    price = next((found for key in keys if (found := prices.__dict__.get(key)) is not None), None)
    if not isinstance(price, TieredPrices):
        return price
    return next((tier.price for tier in reversed(price.tiers) if total_input > tier.start), price.base)


def _tools(prices: ModelPrice, charge: Charge) -> Decimal:
    total = Decimal(0)
    counts = {"requests_kcount": 1, "web_searches_kcount": charge.web_searches, "storage_searches_kcount": charge.file_searches}
    for key, used in counts.items():
        price = prices.__dict__.get(key)
        if used and price is None and key != "requests_kcount":
            raise Unpriced(f"no price for {key.removesuffix('_kcount').replace('_', ' ')} of model {charge.model} at {charge.provider}")
        if used and isinstance(price, Decimal):
            total += price * used / _THOUSAND
    return total
