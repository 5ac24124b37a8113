"""The price overlay: a TOML file of the user's own prices, which go before the book's. docs/money.md shows its form.

Each `[[price]]` says which calls it is for (provider, upstream, model, service_tier, region, from, until) and what they
cost: `rates`, or the book's price, of another model (`priced_as`), less a discount or with a surcharge. The first that fits counts.
"""

import hashlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from consumer.derive.cost import Charge
from consumer.derive.sheet import TOOLS, Rate
from consumer.derive.usage import ALL

PRICES_MAX = 2000
RATE_MAX = Decimal(10) ** 6  # USD per million tokens
_DIGEST_CHARS = 12

_MATCHES = ("provider", "upstream", "model", "service_tier", "region")
_DATES = ("from", "until")
_EFFECTS = ("rates", "priced_as", "discount_percent", "surcharge_percent")
# Of a fixed price: a leaf without a rate of its own costs what this one does. Audio never costs what text does.
_INSTEAD = {
    "cache_read_tokens": "input_tokens",
    "cache_write_5m_tokens": "input_tokens",
    "cache_write_1h_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "cache_read_audio_tokens": "input_audio_tokens",
}
RATES = tuple(leaf.removesuffix("_tokens") for leaf in ALL)


class BadOverlay(Exception):
    """Every problem found, one line each: where it stands, what is wrong, what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


Facts = tuple[str | None, ...]  # of a call, in the order of _MATCHES


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One `[[price]]`. `since` and `until` are aware, and `until` is not included."""

    name: str
    provider: str | None = None
    upstream: str | None = None
    model: str | None = None  # may hold * and ?
    service_tier: str | None = None
    region: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    rates: Mapping[str, Decimal] = field(default_factory=dict)  # by leaf, USD per million tokens
    tools: Mapping[str, Decimal] = field(default_factory=dict)  # USD per thousand
    priced_as: tuple[str, str] | None = None  # provider and model, in the book's words
    factor: Decimal = Decimal(1)

    def fits(self, facts: Facts, *, standard: bool) -> bool:
        """A fixed price that names no tier is that of the standard one; a discount is one on every tier."""
        if self.service_tier is None and self.rates and not standard:
            return False
        pairs = zip((getattr(self, name) for name in _MATCHES), facts, strict=True)
        return all(wanted is None or (found is not None and fnmatchcase(found.lower(), wanted)) for wanted, found in pairs)

    def holds(self, at: datetime) -> bool:
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)

    def rate(self, leaf: str) -> Rate | None:
        found = self.rates.get(leaf, self.rates.get(_INSTEAD.get(leaf, leaf)))
        return None if found is None else Rate(found)


class Overlay:
    """`digest`: the first letters of the file's SHA-256."""

    def __init__(self, rules: Sequence[Rule] = (), digest: str = "") -> None:
        self.rules, self.digest = tuple(rules), digest
        # Calls are alike: of two thousand entries, each kind of call meets the same few.
        self._fitting = lru_cache(maxsize=4096)(self._search)

    def find(self, charge: Charge, *, standard: bool) -> Rule | None:
        """The first that fits the call and holds at its time."""
        if not self.rules:
            return None
        facts = tuple(getattr(charge, name) for name in _MATCHES)
        return next((rule for rule in self._fitting(facts, standard) if rule.holds(charge.at)), None)

    def _search(self, facts: Facts, standard: bool) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if rule.fits(facts, standard=standard))


def parse(data: bytes, file: str, known: Callable[[str], bool]) -> Overlay:
    """`known` says whether the book has a `provider/model`. Raises BadOverlay with every problem of the file."""
    try:
        table = tomllib.loads(data.decode(), parse_float=Decimal)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise BadOverlay([f"{file}: is no TOML: {error}"]) from None
    problems = [f"{file}: {name}: not known here; prices stand under [[price]]" for name in table if name != "price"]
    entries = table.get("price", [])
    if not isinstance(entries, list) or len(entries) > PRICES_MAX:
        raise BadOverlay([*problems, f"{file}: price: needs at most {PRICES_MAX} entries, each begun by [[price]]"])
    rules = [_Entry(f"{file}: price {number}", entry, known, problems).rule(number) for number, entry in enumerate(entries, 1)]
    if problems:
        raise BadOverlay(problems)
    return Overlay(rules, digest=hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS])


class _Entry:
    """One `[[price]]` as it is read; what is wrong with it goes to `problems`."""

    def __init__(self, where: str, table: Any, known: Callable[[str], bool], problems: list[str]) -> None:
        self._where, self._known, self._problems = where, known, problems
        self._table: Mapping[str, Any] = table if isinstance(table, dict) else {}

    def rule(self, number: int) -> Rule:
        self._check_names()
        matches = {name: self._text(name) for name in _MATCHES}
        since, until = (self._moment(name) for name in _DATES)
        if since and until and until <= since:
            self._problem("until", "needs a date after `from`")
        rates = self._amounts("rates", RATES)
        tools = {name: rates.pop(name) for name in TOOLS if name in rates}
        return Rule(
            name=f"overlay price {number}",
            **matches,
            since=since,
            until=until,
            rates={f"{name}_tokens": usd for name, usd in rates.items()},
            tools=tools,
            priced_as=self._priced_as(),
            factor=self._factor(),
        )

    def _check_names(self) -> None:
        names = (*_MATCHES, *_DATES, *_EFFECTS)
        for name in self._table:
            if name not in names:
                self._problem(name, f"not known here; known are {', '.join(names)}")
        if not any(name in self._table for name in ("provider", "upstream", "model")):
            self._problem("model", "missing; say whose price it is by model, upstream or provider")
        if not any(name in self._table for name in _EFFECTS):
            self._problem("rates", f"missing; say what it costs by one of {', '.join(_EFFECTS)}")
        if "rates" in self._table and (others := [name for name in _EFFECTS[1:] if name in self._table]):
            self._problem("rates", f"cannot stand beside {', '.join(others)}; leave one out")

    def _text(self, name: str) -> str | None:
        value = self._table.get(name)
        if value is None:
            return None
        if isinstance(value, str) and value.strip():
            return value.strip().lower()
        self._problem(name, "needs a text that is not empty")
        return None

    def _moment(self, name: str) -> datetime | None:
        value = self._table.get(name)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, date):
            return datetime.combine(value, time(), UTC)
        if value is not None:
            self._problem(name, "needs a date without quotes, as 2026-01-31")
        return None

    def _amounts(self, name: str, leaves: tuple[str, ...]) -> dict[str, Decimal]:
        value = self._table.get(name, {})
        if not isinstance(value, dict) or (name in self._table and not value):
            self._problem(name, "needs USD per million tokens by kind, as { input = 1.25, output = 10 }")
            return {}
        known = (*leaves, *TOOLS)
        for kind in value:
            if kind not in known:
                self._problem(f"{name}.{kind}", f"not known here; known are {', '.join(known)}")
        amounts = {kind: self._amount(f"{name}.{kind}", usd, RATE_MAX) for kind, usd in value.items() if kind in known}
        return {kind: usd for kind, usd in amounts.items() if usd is not None}

    def _priced_as(self) -> tuple[str, str] | None:
        name = self._table.get("priced_as")
        provider, _, model = name.partition("/") if isinstance(name, str) else ("", "", "")
        if provider and model and self._known(f"{provider}/{model}"):
            return provider, model
        if name is not None:
            self._problem("priced_as", "needs a model of the price book as provider/model, as openai/gpt-4o")
        return None

    def _factor(self) -> Decimal:
        discount = self._amount("discount_percent", self._table.get("discount_percent", 0), Decimal(100))
        surcharge = self._amount("surcharge_percent", self._table.get("surcharge_percent", 0), Decimal(1000))
        return (1 - (discount or Decimal(0)) / 100) * (1 + (surcharge or Decimal(0)) / 100)

    def _amount(self, name: str, value: Any, most: Decimal) -> Decimal | None:
        """A number, or one as text."""
        try:
            found = Decimal(value) if isinstance(value, int | str | Decimal) and not isinstance(value, bool) else None
        except ArithmeticError:
            found = None
        if found is not None and found.is_finite() and 0 <= found <= most and not (found and found.adjusted() < -12):
            return found
        self._problem(name, f"needs a number, 0 to {most}")
        return None

    def _problem(self, name: str, text: str) -> None:
        self._problems.append(f"{self._where}: {name}: {text}")
