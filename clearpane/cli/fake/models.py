"""The models on offer, with the list prices of their makers (USD per million tokens)."""

from dataclasses import dataclass
from decimal import Decimal

from clearpane.cli.fake.refusal import Refusal

MILLION = Decimal(1_000_000)
_CACHED_FROM, _CACHED_STEP = 1024, 128  # OpenAI caches prompts from 1024 tokens on, in steps of 128
_REASONING_STEP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Leaf buckets: every token stands in exactly one."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def prompt(self) -> int:
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def completion(self) -> int:
        return self.output + self.reasoning


@dataclass(frozen=True, slots=True)
class Price:
    input: Decimal
    output: Decimal = Decimal(0)
    cache_read: Decimal = Decimal(0)
    cache_write_5m: Decimal = Decimal(0)
    cache_write_1h: Decimal = Decimal(0)

    def of(self, tokens: Tokens) -> Decimal:
        """USD, exact."""
        return (
            self.input * tokens.input
            + self.cache_read * tokens.cache_read
            + self.cache_write_5m * tokens.cache_write_5m
            + self.cache_write_1h * tokens.cache_write_1h
            + self.output * tokens.completion
        ) / MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    name: str  # what a caller asks for
    snapshot: str  # what the answer names
    maker: str
    price: Price
    reasons: bool = False

    def count(self, prompt: int, output: int) -> Tokens:
        """Long prompts were seen before, and reasoning models reason: both by rule, so that both can be foretold."""
        cached = prompt - prompt % _CACHED_STEP if prompt >= _CACHED_FROM else 0
        reasoning = _REASONING_STEP * (1 + prompt // 100) if self.reasons else 0
        return Tokens(input=prompt - cached, cache_read=cached, output=output, reasoning=reasoning)


def _price(*dollars: str) -> Price:
    return Price(*map(Decimal, dollars))


CATALOGUE = (
    Model(name="gpt-4o-mini", snapshot="gpt-4o-mini-2024-07-18", maker="openai", price=_price("0.15", "0.60", "0.075")),
    Model(name="gpt-4.1", snapshot="gpt-4.1-2025-04-14", maker="openai", price=_price("2", "8", "0.50")),
    Model(name="gpt-4.1-mini", snapshot="gpt-4.1-mini-2025-04-14", maker="openai", price=_price("0.40", "1.60", "0.10")),
    Model(name="o4-mini", snapshot="o4-mini-2025-04-16", maker="openai", price=_price("1.10", "4.40", "0.275"), reasons=True),
    Model(name="gpt-5-mini", snapshot="gpt-5-mini-2025-08-07", maker="openai", price=_price("0.25", "2", "0.025"), reasons=True),
    Model(name="gpt-3.5-turbo-instruct", snapshot="gpt-3.5-turbo-instruct", maker="openai", price=_price("1.50", "2")),
    Model(name="text-embedding-3-small", snapshot="text-embedding-3-small", maker="openai", price=_price("0.02")),
    Model(
        name="claude-sonnet-4-6",
        snapshot="claude-sonnet-4-6",
        maker="anthropic",
        price=_price("3", "15", "0.30", "3.75", "6"),
    ),
    Model(
        name="claude-sonnet-4-5",
        snapshot="claude-sonnet-4-5-20250929",
        maker="anthropic",
        price=_price("3", "15", "0.30", "3.75", "6"),
    ),
    Model(
        name="claude-haiku-4-5",
        snapshot="claude-haiku-4-5-20251001",
        maker="anthropic",
        price=_price("1", "5", "0.10", "1.25", "2"),
    ),
)
_BY_NAME = {name: model for model in CATALOGUE for name in (model.name, model.snapshot)}


def find(name: object, maker: str) -> Model:
    """Raises Refusal (404) for a model that `maker` does not have."""
    model = _BY_NAME.get(name) if isinstance(name, str) else None
    if model is None or model.maker != maker:
        raise Refusal(404, f"The model `{name}` does not exist or you do not have access to it.", code="model_not_found")
    return model
