"""One model's rates at one time, from the book or the overlay, and the bill that they make of a call's usage."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from consumer.derive.cost import Charge, Cost, Unpriced
from consumer.derive.usage import ALL, INPUT, Leaves

_MILLION, _THOUSAND = Decimal(10) ** 6, Decimal(10) ** 3

TOOLS = ("requests", "web_searches", "file_searches", "images", "audio_seconds", "characters", "searches")


@dataclass(frozen=True, slots=True)
class Rate:
    usd: Decimal  # per million tokens
    above: int | None = None  # it holds for calls of more input tokens than that


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """`rate` answers for a leaf and the call's input tokens; `tools` are USD per thousand, by TOOLS."""

    source: str
    name: str
    version: str
    date: str | None
    rate: Callable[[str, int], Rate | None]
    tools: Mapping[str, Decimal] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)
    factor: Decimal = Decimal(1)  # a discount or surcharge, on tokens and tools

    def bill(self, leaves: Leaves, charge: Charge) -> Cost:
        """Raises Unpriced: a leaf without a price leaves the call without a cost."""
        found = self._rates(leaves, charge)
        rates = {leaf: rate.usd * self.factor for leaf, rate in found.items()}
        given = sum((rate * getattr(leaves, leaf) for leaf, rate in rates.items() if leaf in INPUT), Decimal(0)) / _MILLION
        made = sum((rate * getattr(leaves, leaf) for leaf, rate in rates.items() if leaf not in INPUT), Decimal(0)) / _MILLION
        tools = self._tools(charge)
        variants = dict(self.variants)
        if (above := next((rate.above for rate in found.values() if rate.above is not None), None)) is not None:
            variants["input_tokens"] = f">{above}"
        return Cost(
            source=self.source,
            input=None if charge.units else given,
            output=None if charge.units else made,
            tools=tools,
            total=given + made + tools,
            price_version=self.version,
            price_date=self.date,
            priced_as=self.name,
            variants=variants,
            variant_source={name: charge.said_by.get(_SAID.get(name, name), "usage") for name in variants},
            rates=rates,
        )

    def _rates(self, leaves: Leaves, charge: Charge) -> dict[str, Rate]:
        total_input, found = leaves.total_input, {}
        for leaf in ALL:
            if getattr(leaves, leaf) == 0:
                continue
            if (rate := self.rate(leaf, total_input)) is None:
                raise Unpriced(f"no price for {leaf} of model {charge.model} at {charge.provider or charge.upstream}")
            found[leaf] = rate
        return found

    def _tools(self, charge: Charge) -> Decimal:
        total = Decimal(0)
        given: dict[str, int | Decimal] = {
            "requests": 1,
            "web_searches": charge.web_searches,
            "file_searches": charge.file_searches,
            **charge.units,
        }
        for name, used in given.items():
            price = self.tools.get(name)
            if used and price is None and name != "requests":
                raise Unpriced(f"no price for {name.replace('_', ' ')} of model {charge.model} at {charge.provider or charge.upstream}")
            if used and price is not None:
                total += price * self.factor * used / _THOUSAND
        return total


_SAID = {"processing": "service_tier"}
