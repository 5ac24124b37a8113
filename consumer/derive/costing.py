"""Cost of a call: what the provider stated it cost, else its usage by the price book, else unknown with a reason."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from consumer.derive.metering import Metered
from consumer.derive.prices import COST_MAX, Charge, Cost, PriceBook, unknown
from consumer.derive.reading import Reading
from consumer.derive.untrusted import Mapping, count, mapping, short, text


def charge(reading: Reading, metered: Metered, book: PriceBook) -> Cost:
    """Raises nothing: usage that could not be read was found before."""
    provider = text(reading.target.get("provider"))
    if metered.leaves is None:
        return unknown(metered.reason or "usage unknown")
    if (stated := _stated(provider, reading.answer.stated)) is not None:
        return stated
    return book.price(metered.leaves, _charge(reading, provider))


def _charge(reading: Reading, provider: str | None) -> Charge:
    answer, request = reading.answer, reading.request
    given = mapping(answer.stated)
    tools = mapping(given.get("server_tool_use"))
    return Charge(
        provider=provider,
        model=answer.model or request.model,
        at=_received_at(reading.envelope),
        service_tier=answer.service_tier or short(given.get("service_tier")) or request.service_tier,
        speed=short(given.get("speed")) or request.speed,
        region="us" if given.get("inference_geo") == "us" else None,  # Anthropic charges more for it, the book does not know
        web_searches=answer.web_searches + (count(tools, "web_search_requests") or 0),
        file_searches=answer.file_searches,
    )


def _received_at(envelope: Mapping) -> datetime:
    """Prices have dates. A time that cannot be read is now."""
    try:
        found = datetime.fromisoformat(str(mapping(envelope.get("timing")).get("received_at")))
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _stated(provider: str | None, stated: Mapping | None) -> Cost | None:
    """OpenRouter and Perplexity say what a call cost, in USD."""
    if stated is None or provider not in ("openrouter", "perplexity"):
        return None
    cost = stated.get("cost")
    if isinstance(cost, dict):  # Perplexity
        return _provided(_amount(cost.get("total_cost")), _amount(cost.get("input_tokens_cost")), _amount(cost.get("output_tokens_cost")))
    total, parts = _amount(cost), mapping(stated.get("cost_details"))
    if total is not None and stated.get("is_byok") is True:  # the fee alone: the caller's own key pays the rest
        upstream = _amount(parts.get("upstream_inference_cost"))
        total = total + upstream if upstream is not None else None
    return _provided(total, _amount(parts.get("upstream_inference_prompt_cost")), _amount(parts.get("upstream_inference_completions_cost")))


def _provided(total: Decimal | None, given: Decimal | None, made: Decimal | None) -> Cost | None:
    """The parts are shown only where they are the whole: fees and tools are in the total alone."""
    if total is None:
        return None
    if given is None or made is None or given + made != total:
        given = made = None
    return Cost(source="provider", input=given, output=made, total=total)


def _amount(value: Any) -> Decimal | None:
    """A float's shortest text is what the provider wrote."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    amount = Decimal(repr(value))
    return amount if 0 <= amount <= COST_MAX else None
