"""Cost of a call: what the provider stated it cost, else its usage by the price book, else unknown with a reason."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from consumer.derive import units
from consumer.derive.cost import COST_MAX, Charge, Cost, unknown
from consumer.derive.metering import Metered
from consumer.derive.prices import PriceBook
from consumer.derive.reading import Reading
from consumer.derive.untrusted import Malformed, Mapping, count, mapping, short, text
from consumer.derive.usage import Leaves

_TICKS = Decimal(10) ** 10  # of a dollar
_VERTEX_CLAUDE = re.compile(r"/locations/([a-z0-9-]{1,32})/publishers/anthropic/")
_OPENAI_REGION = re.compile(r"https?://([a-z]{2})\.api\.openai\.com[:/]")


def charge(reading: Reading, metered: Metered, book: PriceBook) -> Cost:
    """Never raises for what a body holds."""
    provider = text(reading.target.get("provider"))
    if metered.leaves is None:
        return _by_units(reading, metered.reason or "usage unknown", book)
    if (stated := _stated(provider, reading.answer.stated, whole=metered.source == "provider")) is not None:
        return stated
    try:
        asked = _charge(reading, provider)
    except Malformed:
        return unknown("the stated usage cannot be read")
    return book.price(metered.leaves, asked)


def _by_units(reading: Reading, reason: str, book: PriceBook) -> Cost:
    name, used = units.name_of(reading), units.count(reading)
    if name is None or used is None:
        missing = name is not None and reading.status is not None and reading.status < 400
        return unknown(f"{reason}; how many {name} is not stated" if missing else reason)
    try:
        asked = _charge(reading, text(reading.target.get("provider")))
    except Malformed:
        return unknown("the stated usage cannot be read")
    return book.price(Leaves(), replace(asked, units={name: used}))


def _charge(reading: Reading, provider: str | None) -> Charge:
    answer, request = reading.answer, reading.request
    given = mapping(answer.stated)
    tools = mapping(given.get("server_tool_use"))
    tier, tier_by = _first(answer=answer.service_tier or short(given.get("service_tier")), request=request.service_tier)
    speed, speed_by = _first(answer=short(given.get("speed")), request=request.speed)
    region, region_by = _region(reading, given)
    said_by = {"service_tier": tier_by, "speed": speed_by, "region": region_by}
    return Charge(
        provider=provider,
        upstream=text(reading.target.get("upstream")),
        model=answer.model or request.model,
        at=_received_at(reading.envelope),
        service_tier=tier,
        speed=speed,
        region=region,
        web_searches=answer.web_searches + (count(tools, "web_search_requests") or 0),
        file_searches=answer.file_searches,
        said_by={name: source for name, source in said_by.items() if source},
    )


def _first(**by: str | None) -> tuple[str | None, str | None]:
    """The first value that there is, and who said it."""
    return next(((value, who) for who, value in by.items() if value), (None, None))


def _region(reading: Reading, given: Mapping) -> tuple[str | None, str | None]:
    """Only where it is charged for: Anthropic's own, Claude on Vertex outside of `global`, OpenAI's regional hosts."""
    if given.get("inference_geo") == "us":
        return "us", "answer"
    path = text(mapping(reading.envelope.get("request")).get("path")) or ""
    if (found := _VERTEX_CLAUDE.search(path)) and found[1] != "global":
        return found[1], "url"
    found = _OPENAI_REGION.match(text(reading.target.get("url")) or "")
    return (found[1], "url") if found else (None, None)


def _received_at(envelope: Mapping) -> datetime:
    """Prices have dates. A time that cannot be read is now."""
    try:
        found = datetime.fromisoformat(str(mapping(envelope.get("timing")).get("received_at")))
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _stated(provider: str | None, stated: Mapping | None, *, whole: bool) -> Cost | None:
    """OpenRouter and Perplexity say what a call cost in USD, xAI in ticks: https://docs.x.ai/developers/cost-tracking"""
    if stated is None or provider not in ("openrouter", "perplexity", "xai"):
        return None
    if provider == "xai":
        ticks = _amount(stated.get("cost_in_usd_ticks"), most=COST_MAX * _TICKS) if whole else None
        return _provided(None if ticks is None else ticks / _TICKS, None, None)
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


def _amount(value: Any, most: Decimal = COST_MAX) -> Decimal | None:
    """A float's shortest text is what the provider wrote."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    amount = Decimal(repr(value))
    return amount if 0 <= amount <= most else None
