"""The price book: a call's leaves and model -> its cost. Prices are those of the installed genai-prices, under the user's overlay.

What it cannot price is null with a reason: an unknown model, a tier, region or modality without a price of its own. No network.
"""

import re
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import genai_prices
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from consumer.derive.cost import Charge, Cost, Unpriced
from consumer.derive.overlay import BadOverlay, Overlay, Rule, parse
from consumer.derive.sheet import Rate, Sheet
from consumer.derive.usage import Leaves

# When each version of the book was published; its package does not say.
_PUBLISHED = {"0.2.3": "2026-11-10"}

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
# What is not a token -> its key, and what a thousand of it are there.
_TOOLS = {
    "requests": ("requests_kcount", Decimal(1), Decimal(1)),
    "web_searches": ("web_searches_kcount", Decimal(1), Decimal(1)),
    "file_searches": ("storage_searches_kcount", Decimal(1), Decimal(1)),
    "audio_seconds": ("input_audio_hours", Decimal(1000), Decimal(3600)),
    "characters": ("input_mchars", Decimal(1), Decimal(1000)),
}
_STANDARD_TIERS = {"", "default", "standard", "auto", "on_demand", "standard_only"}

# Regional surcharges that the book does not know: 1.1 for inference in the US alone (models from Opus 4.6 on, others refuse it),
# https://platform.claude.com/docs/en/about-claude/pricing ; 1.1 for Claude on a regional endpoint of Vertex from Sonnet 4.5 on,
# https://cloud.google.com/vertex-ai/generative-ai/pricing
_REGIONAL = Decimal("1.1")
_CLAUDE_OF_ONE_PRICE = re.compile(r"claude-(3|4-(opus|sonnet)|(opus|sonnet)-4($|@|-0|-1($|@|-)|-20))")


class PriceBook:
    """Loading takes most of a second: make one and keep it. `date` is that of the book's publication, where it is known."""

    def __init__(self, overlay: Overlay | None = None) -> None:
        self._providers = data_snapshot.get_snapshot().providers
        self._overlay = overlay or Overlay()
        book = f"genai-prices {genai_prices.__version__}"
        self.version = f"{book} + overlay {self._overlay.digest}" if overlay else book
        self.date = _PUBLISHED.get(genai_prices.__version__)
        self._find = lru_cache(maxsize=4096)(self._search)

    def price(self, leaves: Leaves, charge: Charge) -> Cost:
        """Never raises: what has no price is a cost with a reason."""
        try:
            return self.sheet(charge).bill(leaves, charge)
        except Unpriced as error:
            return Cost(source="unknown", reason=str(error), price_version=self.version, price_date=self.date)

    def knows(self, name: str) -> bool:
        """Of `provider/model`, both in the book's words."""
        provider, _, model = name.partition("/")
        return self._find(provider, model) is not None

    def sheet(self, charge: Charge) -> Sheet:
        """The rates for such a call. Raises Unpriced."""
        rule = self._overlay.find(charge, standard=is_standard(charge.service_tier))
        if rule is None:
            provider, model = self._model(charge)
            return self._of_book(charge, provider, model, "book" if charge.provider else "assumed", _region_factor(provider, model, charge))
        if rule.rates or (charge.units and charge.units.keys() <= rule.tools.keys()):
            return self._of_rates(rule, charge)
        found = self._find(*rule.priced_as) if rule.priced_as else self._model(charge)
        if found is None:
            raise Unpriced(f"{rule.name} names a model that the book does not have")
        factor = Decimal(1) if rule.region else _region_factor(*found, charge)
        return self._of_book(charge, *found, "overlay", factor * rule.factor, rule)

    def _of_book(
        self, charge: Charge, provider: Provider, model: ModelInfo, source: str, factor: Decimal, rule: Rule | None = None
    ) -> Sheet:
        context = _context(charge)
        if context and not _has_variant(provider, model, context, charge.at):
            raise Unpriced(f"no price for {'='.join(*context.items())} of model {charge.model} at {charge.provider}")
        prices = model.get_prices(charge.at, context or None)
        if prices.__dict__.get("input_mtok") is None and not charge.units:
            raise Unpriced(f"no token price for model {charge.model} at {charge.provider}")
        name = f"{provider.id}/{model.id}"
        return Sheet(
            source=source,
            name=f"{rule.name}: {name}" if rule else name,
            version=self.version,
            date=self.date,
            rate=lambda leaf, total_input: _rate(provider, prices, leaf, total_input),
            tools=_per_thousand(prices) | (dict(rule.tools) if rule else {}),
            variants=context | ({"region": charge.region} if charge.region else {}),
            factor=factor,
        )

    def _of_rates(self, rule: Rule, charge: Charge) -> Sheet:
        stated = {"service_tier": charge.service_tier if rule.service_tier else None, "region": charge.region if rule.region else None}
        return Sheet(
            source="overlay",
            name=rule.name,
            version=self.version,
            date=self.date,
            rate=lambda leaf, total_input: rule.rate(leaf),
            tools=rule.tools,
            variants={name: value for name, value in stated.items() if value},
        )

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


def open_book(overlay: Path | None) -> PriceBook:
    """Under the overlay in this file, if there is one. Raises BadOverlay."""
    book = PriceBook()
    if overlay is None:
        return book
    try:
        data = overlay.read_bytes()
    except OSError as error:
        raise BadOverlay([f"{overlay}: cannot be read: {error.strerror}; `price_overlay` names the file"]) from error
    return PriceBook(parse(data, str(overlay), book.knows))


def is_standard(tier: str | None) -> bool:
    return (tier or "").lower() in _STANDARD_TIERS


def _context(charge: Charge) -> dict[str, str]:
    """What the book calls the variant; empty for the standard price."""
    tier = (charge.service_tier or "").lower()
    if tier == "batch":
        return {"processing": "batch"}
    if not is_standard(tier):
        return {"service_tier": tier}
    return {"speed": charge.speed} if charge.speed not in (None, "standard") else {}


def _has_variant(provider: Provider, model: ModelInfo, context: dict[str, str], at: datetime) -> bool:
    """genai-prices answers with the standard price when it knows no such variant; a model found at a fallback provider has none."""
    return any(model is own for own in provider.models) and any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(at)) for variant in model.price_variants or ()
    )


def _region_factor(provider: Provider, model: ModelInfo, charge: Charge) -> Decimal:
    if charge.region is None:
        return Decimal(1)
    if provider.id == "anthropic" and charge.region == "us":
        return _REGIONAL
    if provider.id == "google" and model.id.startswith("claude"):
        return Decimal(1) if _CLAUDE_OF_ONE_PRICE.match(model.id) else _REGIONAL
    raise Unpriced(f"no price for region {charge.region} of model {charge.model} at {charge.provider}: a price overlay can state it")


def _per_thousand(prices: ModelPrice) -> dict[str, Decimal]:
    found = {tool: prices.__dict__.get(key) for tool, (key, _, _) in _TOOLS.items()}
    return {tool: price * _TOOLS[tool][1] / _TOOLS[tool][2] for tool, price in found.items() if isinstance(price, Decimal)}


def _rate(provider: Provider, prices: ModelPrice, leaf: str, total_input: int) -> Rate | None:
    found = next((price for key in _KEYS[leaf] if (price := prices.__dict__.get(key)) is not None), None)
    if found is None and leaf == "input_audio_tokens" and provider.id == "google":
        found = prices.__dict__.get("input_mtok")  # Google names audio only where it costs more than text
    if not isinstance(found, TieredPrices):
        return None if found is None else Rate(found)
    # A tier's price counts for all tokens of a call whose input is above its start.
    return next((Rate(tier.price, tier.start) for tier in reversed(found.tiers) if total_input > tier.start), Rate(found.base))
