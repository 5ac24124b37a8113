"""Our price book against LiteLLM's public price map: where the two name different prices for the same thing. Pure.

The map: https://github.com/BerriAI/litellm, model_prices_and_context_window.json, USD per token as JSON numbers.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from consumer.derive.cost import Charge, Unpriced
from consumer.derive.prices import PriceBook

_MILLION = Decimal(10) ** 6
_MODES = ("chat", "responses", "completion", "embedding")
# LiteLLM's names of providers -> ours. Those whose prices it names per deployment or by size are left out.
PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "vertex_ai-anthropic_models": "vertex",
    "mistral": "mistral",
    "deepseek": "deepseek",
    "xai": "xai",
    "groq": "groq",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "perplexity": "perplexity",
    "voyage": "voyage",
    "moonshot": "moonshot",
    "zai": "zai",
}
_LEAVES = {
    "input_cost_per_token": "input_tokens",
    "cache_read_input_token_cost": "cache_read_tokens",
    "cache_creation_input_token_cost": "cache_write_5m_tokens",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_tokens",
    "input_cost_per_audio_token": "input_audio_tokens",
    "output_cost_per_token": "output_tokens",
    "output_cost_per_reasoning_token": "reasoning_tokens",
    "output_cost_per_audio_token": "output_audio_tokens",
}
_TIERS = {"flex": "flex", "priority": "priority", "batches": "batch"}
_KEY = re.compile(rf"({'|'.join(sorted(_LEAVES, key=len, reverse=True))})(?:_above_(\d{{1,5}})k_tokens)?(?:_({'|'.join(_TIERS)}))?")


class NoPriceMap(ValueError):
    """The bytes are no price map of LiteLLM's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """USD per million tokens; `ours` is None where our book has no such price."""

    provider: str
    model: str
    leaf: str
    variant: str  # empty for the standard price
    ours: Decimal | None
    theirs: Decimal

    @property
    def share(self) -> Decimal | None:
        """By how much ours is above theirs: 0.1 is 10 %. None where one is not known, or theirs is 0 and ours is not."""
        if self.ours is None or (self.theirs == 0 and self.ours != 0):
            return None
        return self.ours / self.theirs - 1 if self.theirs else Decimal(0)


@dataclass(slots=True)
class Report:
    models: int = 0  # found in both
    prices: int = 0  # compared
    missing: list[str] = field(default_factory=list)  # models that our book does not have
    unpriced: int = 0  # prices of models in both that our book does not name: tiers, mostly; such a call has an unknown cost
    differences: list[Difference] = field(default_factory=list)


def compare(data: bytes, book: PriceBook, *, at: datetime, tolerance: Decimal, providers: Iterable[str] = ()) -> Report:
    """`tolerance` is a share: 0.01 lets 1 % pass. `providers` are ours; none: all. Raises NoPriceMap."""
    wanted, report = set(providers), Report()
    for name, entry in _entries(data):
        provider = PROVIDERS[entry["litellm_provider"]]
        if not wanted or provider in wanted:
            _compare_model(report, book, Charge(provider=provider, model=_model(name), at=at), entry, tolerance)
    return report


def _entries(data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        table = json.loads(data, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise NoPriceMap(f"no JSON: {type(error).__name__}") from error
    if not isinstance(table, dict) or not any(isinstance(entry, dict) and "litellm_provider" in entry for entry in table.values()):
        raise NoPriceMap("no JSON object of models, each with a `litellm_provider`")
    for name, entry in sorted(table.items()):
        if isinstance(entry, dict) and str(entry.get("litellm_provider")) in PROVIDERS and entry.get("mode") in _MODES:
            yield name, entry


def _model(name: str) -> str:
    """Without the provider before the slash: `groq/openai/gpt-oss-20b`, `ft:gpt-4o`."""
    first, slash, rest = name.partition("/")
    return rest if slash and (first in PROVIDERS or first in ("vertex_ai", "cohere")) else name


def _compare_model(report: Report, book: PriceBook, charge: Charge, entry: Mapping[str, Any], tolerance: Decimal) -> None:
    try:
        book.sheet(charge)
    except Unpriced:
        report.missing.append(f"{charge.provider}/{charge.model}")
        return
    report.models += 1
    for key, stated in entry.items():
        found, theirs = _KEY.fullmatch(key), _amount(stated)
        if found is None or theirs is None or (found[1].startswith("output") and entry["mode"] == "embedding"):
            continue
        difference = _difference(book, charge, found, theirs)
        report.prices += 1
        report.unpriced += difference.ours is None
        if difference.ours is not None and (difference.share is None or abs(difference.share) > tolerance):
            report.differences.append(difference)


def _difference(book: PriceBook, charge: Charge, found: re.Match[str], theirs: Decimal) -> Difference:
    leaf, above, tier = _LEAVES[found[1]], int(found[2] or 0) * 1000, _TIERS.get(found[3] or "")
    named = [f">{above} input tokens" if above else "", tier or ""]
    return Difference(
        provider=str(charge.provider),
        model=str(charge.model),
        leaf=leaf,
        variant=", ".join(part for part in named if part),
        ours=_ours(book, charge, leaf, above, tier),
        theirs=theirs,
    )


def _ours(book: PriceBook, charge: Charge, leaf: str, above: int, tier: str | None) -> Decimal | None:
    asked = Charge(provider=charge.provider, model=charge.model, at=charge.at, service_tier=tier)
    try:
        rate = book.sheet(asked).rate(leaf, above + 1)
    except Unpriced:
        return None
    return None if rate is None else rate.usd


def _amount(value: Any) -> Decimal | None:
    """A price per token as one per million."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    try:
        return (Decimal(value) * _MILLION).normalize()
    except InvalidOperation:
        return None
