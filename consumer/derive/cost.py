"""A cost, what it depends on, and its form on the record: USD, in decimals."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

CURRENCY = "USD"
COST_MAX = Decimal(10) ** 12  # a stated cost above it is no cost
_SMALLEST = Decimal(1).scaleb(-18)  # what the index's column holds


class Unpriced(Exception):
    """Why there is no cost, in words for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a call's price depends on, apart from its tokens."""

    provider: str | None
    model: str | None
    at: datetime
    upstream: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    region: str | None = None  # where the provider charges for it
    web_searches: int = 0
    file_searches: int = 0
    units: Mapping[str, Decimal] = field(default_factory=dict)  # instead of tokens: by name of consumer.derive.units
    # service_tier, speed, region -> who said so: answer, request, url
    said_by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """USD. `total` is input, output and tools together; all null, with a reason, when unknown."""

    source: str  # provider, book, assumed (by the book, the provider guessed from the model's name), overlay, unknown
    input: Decimal | None = None
    output: Decimal | None = None
    tools: Decimal | None = None
    total: Decimal | None = None
    reason: str | None = None
    price_version: str | None = None
    price_date: str | None = None  # of the book
    priced_as: str | None = None  # the model's name in the book, or the overlay's entry
    # What sets the price apart from the standard one -> its value, and who said so.
    variants: Mapping[str, str] = field(default_factory=dict)
    variant_source: Mapping[str, str] = field(default_factory=dict)
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
            "price_date": self.price_date,
            "priced_as": self.priced_as,
            "variant": ", ".join(f"{name}{'' if value.startswith('>') else '='}{value}" for name, value in self.variants.items()) or None,
            "variant_source": dict(self.variant_source) or None,
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
