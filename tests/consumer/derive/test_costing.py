"""A call's cost from its record: who said the tier and the region, and what the provider itself said it cost."""

from typing import Any

import pytest

from consumer.derive import PriceBook, derive

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def answer(model: str, usage: dict[str, Any] = USAGE, **more: Any) -> dict[str, Any]:
    return {"model": model, "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}], "usage": usage, **more}


def asked(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "b"}], **more}


@pytest.mark.parametrize(
    ("wanted", "got", "variant", "source"),
    [
        ("flex", "flex", "service_tier=flex", {"service_tier": "answer"}),
        ("flex", "default", None, None),  # OpenAI had no room on the tier: the standard price
        ("flex", None, "service_tier=flex", {"service_tier": "request"}),
        ("auto", "priority", "service_tier=priority", {"service_tier": "answer"}),
    ],
)
def test_the_tier_is_the_answers_else_the_requests(
    make: Any, book: PriceBook, wanted: str, got: str | None, variant: str | None, source: dict[str, str] | None
) -> None:
    cost = derive(make(answer("gpt-5", service_tier=got), request=asked("gpt-5", service_tier=wanted)), book)["cost"]
    assert (cost["variant"], cost["variant_source"]) == (variant, source)
    assert (cost["source"], cost["price_version"], cost["price_date"]) == ("book", book.version, book.date)


def test_openrouters_stated_cost_goes_before_every_book(make: Any, book: PriceBook) -> None:
    usage = {**USAGE, "cost": 0.00123}
    cost = derive(make(answer("openai/gpt-4o", usage), request=asked("openai/gpt-4o"), provider="openrouter"), book)["cost"]
    assert (cost["source"], cost["total"], cost["rates"]) == ("provider", "0.00123", {})


def test_xais_stated_ticks_are_dollars(make: Any, book: PriceBook) -> None:
    """The example of xAI's documentation: 37,756,000 ticks are $0.0037756."""
    usage = {**USAGE, "cost_in_usd_ticks": 37756000}
    cost = derive(make(answer("grok-4", usage), request=asked("grok-4"), provider="xai"), book)["cost"]
    assert (cost["source"], cost["total"]) == ("provider", "0.0037756")


def test_ticks_of_a_stream_that_was_cut_are_not_what_the_call_cost(make: Any, book: PriceBook) -> None:
    chunk = '{"model":"grok-3","choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":100,"cost_in_usd_ticks":1}}'
    cut = make(f"data: {chunk}\n\n", request=asked("grok-3"), provider="xai", end="client_disconnected")
    assert derive(cut, book)["cost"]["source"] == "book"


def test_an_unknown_model_is_null_with_a_reason(make: Any, book: PriceBook) -> None:
    cost = derive(make(answer("brand-new"), request=asked("brand-new")), book)["cost"]
    assert (cost["source"], cost["total"], cost["reason"]) == ("unknown", None, "no price for model brand-new at provider openai")


CLAUDE = {
    "type": "message",
    "model": "claude-opus-4-8",
    "content": [{"type": "text", "text": "a"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1_000_000, "output_tokens": 0},
}


@pytest.mark.parametrize(("geo", "total", "variant"), [("us", "5.5", "region=us"), ("global", "5", None), (None, "5", None)])
def test_inference_in_the_us_alone_costs_a_tenth_more(make: Any, book: PriceBook, geo: str, total: str, variant: str | None) -> None:
    stated = {**CLAUDE, "usage": {**CLAUDE["usage"], "inference_geo": geo}}  # type: ignore[dict-item]
    cost = derive(make(stated, request=asked("claude-opus-4-8"), provider="anthropic", operation="messages"), book)["cost"]
    assert (cost["total"], cost["variant"]) == (total, variant)


def test_a_count_of_searches_that_is_no_number_leaves_the_cost_unknown(make: Any, book: PriceBook) -> None:
    stated = {**CLAUDE, "usage": {**CLAUDE["usage"], "server_tool_use": {"web_search_requests": "many"}}}  # type: ignore[dict-item]
    derived = derive(make(stated, request=asked("claude-opus-4-8"), provider="anthropic", operation="messages"), book)
    assert (derived["cost"]["total"], derived["cost"]["reason"]) == (None, "the stated usage cannot be read")
    assert derived["usage"]["input_tokens"] == 1_000_000


@pytest.mark.parametrize(("place", "total"), [("global", "5"), ("us-east5", "5.5"), ("europe-west1", "5.5")])
def test_claude_on_a_regional_endpoint_of_vertex_costs_a_tenth_more(make: Any, book: PriceBook, place: str, total: str) -> None:
    path = f"/v1/projects/p/locations/{place}/publishers/anthropic/models/claude-opus-4-8:rawPredict"
    cost = derive(make(CLAUDE, request=asked("x"), provider="vertex", operation="messages", path=path), book)["cost"]
    assert cost["total"] == total


def test_a_regional_host_of_openai_has_no_price_in_the_book(make: Any, book: PriceBook) -> None:
    call = make(answer("gpt-5.4"), request=asked("gpt-5.4"))
    call["target"]["url"] = "https://eu.api.openai.com/v1/chat/completions"
    assert derive(call, book)["cost"]["reason"] == "no price for region eu of model gpt-5.4 at openai: a price overlay can state it"
