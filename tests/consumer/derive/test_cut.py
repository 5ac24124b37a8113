"""Answers that ended early or never said what they used: estimated and marked, or unknown with a reason; never 0."""

import base64
import gzip
import json
from typing import Any

import pytest

from consumer.derive import PriceBook, derive


def chunk(**delta: Any) -> str:
    finish = delta.pop("finish", None)
    body = {
        "object": "chat.completion.chunk",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return f"data: {json.dumps(body)}\n\n"


def event(**body: Any) -> str:
    return f"event: {body['type']}\ndata: {json.dumps(body)}\n\n"


PARIS = chunk(role="assistant", content="") + chunk(content="The capital of France") + chunk(content=" is Paris.")


def test_client_gone_before_the_usage_chunk(make: Any, book: PriceBook) -> None:
    """3 (message) + 1 (role) + 7 (text) + 3 (priming) = 14, as OpenAI counts this prompt; 7 tokens had arrived."""
    derived = derive(make(PARIS, end="client_disconnected"), book)
    usage = derived["usage"]
    assert (usage["source"], usage["method"], usage["stated"]) == ("estimated", "tiktoken o200k_base", None)
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (14, 7, 21)
    # 14 * 2.5 = 35; 7 * 10 = 70; millionths
    assert (derived["cost"]["source"], derived["cost"]["total"]) == ("book", "0.000105")
    assert derived["answer"]["text"] == "The capital of France is Paris."


def test_a_whole_stream_without_usage(make: Any, book: PriceBook) -> None:
    """Without stream_options.include_usage OpenAI states none."""
    usage = derive(make(PARIS + chunk(finish="stop") + "data: [DONE]\n\n"), book)["usage"]
    assert (usage["source"], usage["input_tokens"], usage["output_tokens"]) == ("estimated", 14, 7)


def test_a_stream_torn_within_an_event(make: Any, book: PriceBook) -> None:
    derived = derive(make(PARIS + 'data: {"choices": [{"ind', end="upstream_error"), book)
    assert derived["parse_error"] is None
    assert derived["usage"]["output_tokens"] == 7


def test_a_bad_event_does_not_hide_the_usage_behind_it(make: Any, book: PriceBook) -> None:
    last = {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}}
    body = PARIS + "data: {oops}\n\n" + chunk(finish="stop") + f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n"
    derived = derive(make(body), book)
    assert derived["parse_error"].startswith("response: not JSON")
    assert (derived["usage"]["source"], derived["usage"]["total_tokens"]) == ("provider", 11)


def anthropic_start(output: int = 1) -> str:
    usage = {"input_tokens": 25, "cache_read_input_tokens": 100, "output_tokens": output}
    return event(type="message_start", message={"type": "message", "model": "claude-sonnet-4-5-20250929", "content": [], "usage": usage})


def anthropic(make: Any, body: str, **more: Any) -> dict[str, Any]:
    request = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    found: dict[str, Any] = make(body, provider="anthropic", operation="messages", path="/v1/messages", request=request, **more)
    return found


def test_a_cut_anthropic_stream_keeps_its_stated_input_and_counts_what_arrived(make: Any, book: PriceBook) -> None:
    body = anthropic_start() + event(
        type="content_block_delta", index=0, delta={"type": "text_delta", "text": "The capital of France is Paris."}
    )
    usage = derive(anthropic(make, body, end="client_disconnected"), book)["usage"]
    assert (usage["input_tokens"], usage["cache_read_tokens"], usage["output_tokens"]) == (25, 100, 7)
    assert (usage["source"], usage["method"]) == ("estimated", "input stated; output tiktoken o200k_base; not the model's own encoding")


def test_an_error_event_within_a_stream(make: Any, book: PriceBook) -> None:
    body = anthropic_start() + event(type="error", error={"type": "overloaded_error", "message": "Overloaded"})
    derived = derive(anthropic(make, body), book)
    assert derived["error_code"] == "overloaded_error"
    assert (derived["usage"]["source"], derived["usage"]["input_tokens"], derived["usage"]["output_tokens"]) == ("estimated", 25, 1)


def test_the_running_count_of_a_cut_gemini_stream_is_a_lower_bound(make: Any, book: PriceBook) -> None:
    part = {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 40}}
    envelope = make(f"data: {json.dumps(part)}\n\n", provider="gemini", operation="generate_content", end="client_disconnected")
    usage = derive(envelope, book)["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["source"]) == (4, 40, "estimated")


def test_a_cut_json_array_keeps_its_whole_elements(make: Any, book: PriceBook) -> None:
    part = {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 40}}
    body = "[" + json.dumps(part) + ',\r\n{"candidates": [{"con'
    derived = derive(make(body, provider="gemini", operation="generate_content", end="client_disconnected"), book)
    assert (derived["answer"]["text"], derived["usage"]["input_tokens"], derived["parse_error"]) == ("Hi", 4, None)


def test_an_answer_kept_in_part_is_scaled_to_its_bytes(make: Any, book: PriceBook) -> None:
    envelope = make(PARIS, truncated=True, body_bytes=len(PARIS) * 10)
    usage = derive(envelope, book)["usage"]
    assert usage["output_tokens"] == 70
    assert usage["method"] == "input tiktoken o200k_base; output tiktoken o200k_base; scaled to the answer's bytes"


def test_a_json_answer_kept_in_part_is_unknown(make: Any, book: PriceBook) -> None:
    derived = derive(make('{"choices": [{"message": {"content": "The cap', truncated=True), book)
    assert derived["parse_error"].startswith("response: not JSON")
    assert (derived["usage"]["source"], derived["cost"]["total"]) == ("unknown", None)


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        ({"answer": None}, "no answer was recorded"),
        ({"answer": PARIS, "status": None}, "no answer was recorded"),
        ({"answer": {"error": {"code": "x"}}, "status": 500}, "error answer"),
        ({"answer": {"error": "odd"}, "status": 999}, "error answer"),
        ({"answer": {"error": "boom"}, "status": 404}, "error answer"),
        ({"answer": {"object": "list", "data": []}, "operation": "models"}, "the answer states no usage that is understood"),
        ({"answer": {"input_tokens": 12}, "operation": "count_tokens"}, "the answer states no usage that is understood"),
        ({"answer": PARIS, "request": None}, "no usage stated, and the request cannot be read"),
        ({"answer": PARIS, "policy": {"omitted": ["request"]}}, "no usage stated, and the request's body is not kept"),
        ({"answer": PARIS, "policy": {"omitted": ["response"]}}, "no usage stated, and the answer's body is not kept"),
        ({"answer": {"object": "response", "status": "queued", "output": []}, "operation": "responses"}, "nothing was generated yet"),
    ],
)
def test_unknown_usage_says_why(envelope: dict[str, Any], reason: str, make: Any, book: PriceBook) -> None:
    derived = derive(make(envelope.pop("answer"), **envelope), book)
    assert (derived["usage"]["source"], derived["usage"]["reason"], derived["usage"]["total_tokens"]) == ("unknown", reason, None)
    assert (derived["cost"]["source"], derived["cost"]["reason"], derived["cost"]["total"]) == ("unknown", reason, None)


def test_an_answer_fetched_again_is_not_billed_again(make: Any, book: PriceBook) -> None:
    stored = {"object": "response", "status": "completed", "model": "gpt-4o", "usage": {"input_tokens": 3, "output_tokens": 4}}
    envelope = make(stored, operation="responses", request=None)
    envelope["request"]["method"] = "GET"
    derived = derive(envelope, book)
    assert (derived["usage"]["source"], derived["usage"]["reason"]) == ("unknown", "a GET generates nothing")
    assert derived["usage"]["stated"] == stored["usage"]


def wire(envelope: dict[str, Any], data: bytes, coding: str | None) -> dict[str, Any]:
    envelope["response"] |= {"body": base64.b64encode(data).decode(), "body_encoding": "base64", "content_encoding": coding}
    return envelope


def test_a_body_left_compressed_is_decoded(make: Any, book: PriceBook) -> None:
    derived = derive(wire(make(None), gzip.compress(PARIS.encode()), "gzip"), book)
    assert derived["answer"]["text"] == "The capital of France is Paris."


def test_a_compressed_stream_cut_in_the_middle(make: Any, book: PriceBook) -> None:
    data = gzip.compress(PARIS.encode() + b": filler\n" * 500)
    derived = derive(wire(make(None, end="client_disconnected"), data[:-20], "gzip"), book)
    assert derived["usage"]["output_tokens"] == 7
    assert derived["parse_error"] is None


def test_a_bomb_is_bounded_and_named(make: Any, book: PriceBook) -> None:
    derived = derive(wire(make(None), gzip.compress(b"{" + b" " * (80 << 20)), "gzip"), book)
    assert derived["parse_error"] is not None
    assert derived["cost"]["total"] is None


def test_embeddings_larger_than_what_is_kept(make: Any, book: PriceBook) -> None:
    """Their usage comes last, but it is the input's alone: tokens of "Hello" and " world" at 0.02 per million."""
    body = '{"object": "list", "data": [{"object": "embedding", "embedding": [0.1, 0.'
    request = {"model": "text-embedding-3-small", "input": ["Hello", " world"]}
    derived = derive(make(body, request=request, operation="embeddings", truncated=True, body_bytes=10**7), book)
    assert (derived["usage"]["source"], derived["usage"]["input_tokens"], derived["usage"]["output_tokens"]) == ("estimated", 2, 0)
    assert (derived["usage"]["method"], derived["cost"]["total"]) == ("tiktoken cl100k_base", "0.00000004")


@pytest.mark.parametrize(
    ("body", "operation", "code"),
    [
        ({"object": "error", "message": "Invalid model", "type": "invalid_model", "param": None, "code": "1500"}, "chat", "1500"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "messages", "overloaded_error"),
        ([{"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}], "generate_content", "RESOURCE_EXHAUSTED"),
        ({"error": {"code": "billing_hard_limit_reached", "type": "x"}}, "images", "billing_hard_limit_reached"),
        ({"error": {"type": "invalid_request_error", "code": None}}, "embeddings", "invalid_request_error"),
        ({"error": "boom"}, "chat", None),
    ],
)
def test_error_codes_of_the_provider(body: Any, operation: str, code: str | None, make: Any, book: PriceBook) -> None:
    derived = derive(make(body, operation=operation, status=400), book)
    assert (derived["error_code"], derived["usage"]["reason"], derived["parse_error"]) == (code, "error answer", None)


def test_the_proxy_s_own_error_is_no_code_of_the_provider(make: Any, book: PriceBook) -> None:
    body = {"error": {"type": "clearpane_proxy", "code": "no_route", "message": "no upstream"}}
    assert derive(make(body, status=400, end="rejected"), book)["error_code"] is None


@pytest.mark.parametrize("model", ["o3", "gpt-5-mini"])
def test_hidden_reasoning_is_said_to_be_missing(model: str, make: Any, book: PriceBook) -> None:
    body = PARIS.replace("gpt-4o-2024-08-06", model)
    assert derive(make(body, end="timeout"), book)["usage"]["method"].endswith("hidden reasoning not counted")


def test_images_are_said_to_be_missing(make: Any, book: PriceBook) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    request = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
    method = derive(make(PARIS, request=request, end="timeout"), book)["usage"]["method"]
    assert "images, files and history not counted" in method
