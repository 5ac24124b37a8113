"""The mistakes that every tool of this kind has made with usage, one test each."""

import base64
import json
from typing import Any

import pytest

from consumer.derive import PriceBook, derive
from consumer.derive.families import realtime
from consumer.derive.usage import ALL


def leaves_of(derived: dict[str, Any]) -> dict[str, int]:
    assert derived["parse_error"] is None
    assert derived["usage"]["source"] == "provider"
    return {name: derived["usage"][name] for name in ALL if derived["usage"][name]}


def sse(*documents: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(each)}\n\n" for each in documents)


def chat(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": usage,
    }


def chunk(usage: dict[str, Any] | None = None, **choice: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": {}, "finish_reason": None, **choice}] if choice else []
    return {"object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06", "choices": choices, "usage": usage}


USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
STREAM = sse(chunk(delta={"content": "Hi"}), chunk(finish_reason="stop"))


def test_cached_tokens_are_not_added_to_input(make: Any, book: PriceBook) -> None:
    derived = derive(make(chat({**USAGE, "prompt_tokens_details": {"cached_tokens": 64}})), book)
    assert leaves_of(derived) == {"input_tokens": 36, "cache_read_tokens": 64, "output_tokens": 20}


@pytest.mark.parametrize("streamed", [False, True])
def test_anthropic_cache_reads_and_writes_stand_beside_the_input(streamed: bool, make: Any, book: PriceBook) -> None:
    given = {"input_tokens": 50, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 300}
    split = {"cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100}}
    message = {"type": "message", "model": "claude-sonnet-4-5", "content": [{"type": "text", "text": "Hi"}]}
    answer: Any = {**message, "stop_reason": "end_turn", "usage": {**given, **split, "output_tokens": 8}}
    if streamed:
        last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {**given, "output_tokens": 8}}
        answer = sse({"type": "message_start", "message": {**message, "usage": {**given, **split, "output_tokens": 1}}}, last)
    derived = derive(make(answer, provider="anthropic", operation="messages"), book)
    assert leaves_of(derived) == {
        "input_tokens": 50,
        "cache_read_tokens": 1000,
        "cache_write_5m_tokens": 200,
        "cache_write_1h_tokens": 100,
        "output_tokens": 8,
    }


def test_reasoning_is_not_added_twice(make: Any, book: PriceBook) -> None:
    derived = derive(make(chat({**USAGE, "completion_tokens_details": {"reasoning_tokens": 15}})), book)
    assert leaves_of(derived) == {"input_tokens": 100, "output_tokens": 5, "reasoning_tokens": 15}


def test_the_usage_chunk_after_the_last_choice_counts(make: Any, book: PriceBook) -> None:
    derived = derive(make(STREAM + sse(chunk(USAGE)) + "data: [DONE]\n\n"), book)
    assert leaves_of(derived) == {"input_tokens": 100, "output_tokens": 20}
    assert derived["finish_reasons"] == ["stop"]


def test_a_client_gone_before_the_usage_chunk_leaves_an_estimate_not_0(make: Any, book: PriceBook) -> None:
    usage = derive(make(sse(chunk(delta={"content": "Hi there"})), end="client_disconnected"), book)["usage"]
    assert (usage["source"], usage["output_tokens"]) == ("estimated", 2)
    assert usage["input_tokens"] > 0


def test_two_usage_blocks_in_one_stream_are_one_statement(make: Any, book: PriceBook) -> None:
    """vLLM's continuous_usage_stats, Together, Gemini: each restates the counts so far."""
    running = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    derived = derive(make(sse(chunk(running, delta={"content": "Hi"}), chunk(USAGE, finish_reason="stop"), chunk(USAGE))), book)
    assert leaves_of(derived) == {"input_tokens": 100, "output_tokens": 20}


@pytest.mark.parametrize("streamed", [False, True])
def test_openrouter_s_stated_cost_is_the_cost(streamed: bool, make: Any, book: PriceBook) -> None:
    usage = {**USAGE, "cost": 0.00123, "is_byok": False}
    answer = STREAM + sse(chunk(usage)) if streamed else chat(usage)
    cost = derive(make(answer, provider="openrouter"), book)["cost"]
    assert (cost["source"], cost["total"]) == ("provider", "0.00123")


def test_gemini_thinking_is_output_that_was_paid_for(make: Any, book: PriceBook) -> None:
    answer = {
        "candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 200, "totalTokenCount": 215},
        "modelVersion": "gemini-2.5-flash",
    }
    derived = derive(make(answer, provider="gemini", operation="generate_content"), book)
    assert leaves_of(derived) == {"input_tokens": 10, "output_tokens": 5, "reasoning_tokens": 200}
    # 205 * 2.5 millionths
    assert derived["cost"]["output"] == "0.0005125"


def test_gemini_thinking_in_openai_s_form_is_in_the_total_alone(make: Any, book: PriceBook) -> None:
    derived = derive(make(chat({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}), provider="gemini"), book)
    assert leaves_of(derived) == {"input_tokens": 35, "output_tokens": 12, "reasoning_tokens": 62}


def test_a_bedrock_event_stream_is_read(make: Any, frame: Any, book: PriceBook) -> None:
    body = frame("contentBlockDelta", b'{"contentBlockIndex": 0, "delta": {"text": "Hi"}}') + frame(
        "messageStop", b'{"stopReason": "end_turn"}'
    )
    body += frame("metadata", b'{"usage": {"inputTokens": 10, "outputTokens": 2, "cacheReadInputTokens": 90, "totalTokens": 102}}')
    envelope = make(None, provider="aws", operation="converse", path="/model/amazon.nova-lite-v1%3A0/converse-stream")
    envelope["response"] |= {"body": base64.b64encode(body).decode(), "body_encoding": "base64"}
    derived = derive(envelope, book)
    assert leaves_of(derived) == {"input_tokens": 10, "cache_read_tokens": 90, "output_tokens": 2}
    assert (derived["answer"]["text"], derived["model"]) == ("Hi", "amazon.nova-lite-v1:0")


def test_bedrock_s_metrics_are_not_added_to_the_maker_s_counts(make: Any, frame: Any, book: PriceBook) -> None:
    def wrapped(document: dict[str, Any]) -> bytes:
        inner = base64.b64encode(json.dumps(document).encode()).decode()
        framed: bytes = frame("chunk", json.dumps({"bytes": inner}).encode())
        return framed

    usage = {"input_tokens": 25, "cache_read_input_tokens": 30, "output_tokens": 1}
    body = wrapped({"type": "message_start", "message": {"type": "message", "model": "claude-sonnet-4-5-20250929", "usage": usage}})
    body += wrapped({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}})
    body += wrapped({"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 25, "outputTokenCount": 15}})
    envelope = make(None, provider="aws", operation="invoke", path="/model/x/invoke-with-response-stream")
    envelope["response"] |= {"body": base64.b64encode(body).decode(), "body_encoding": "base64"}
    assert leaves_of(derive(envelope, book)) == {"input_tokens": 25, "cache_read_tokens": 30, "output_tokens": 15}


def test_a_long_context_costs_its_tier_for_all_of_its_tokens(make: Any, book: PriceBook) -> None:
    """gpt-5.4 above 272,000 input tokens: 5 and 22.5; up to there 2.5 and 15. Cached tokens are part of the input."""
    for prompt, cached, total, variant in (
        (272_000, 0, "0.695", None),  # 272000 * 2.5 + 1000 * 15 = 695000
        (272_001, 0, "1.382505", "input_tokens>272000"),  # 272001 * 5 + 1000 * 22.5 = 1382505
        (280_000, 100_000, "0.9725", "input_tokens>272000"),  # 180000 * 5 + 100000 * 0.5 + 22500 = 972500
    ):
        usage = {"prompt_tokens": prompt, "completion_tokens": 1000, "prompt_tokens_details": {"cached_tokens": cached}}
        cost = derive(make({**chat(usage), "model": "gpt-5.4"}), book)["cost"]
        assert (cost["total"], cost["variant"]) == (total, variant)


@pytest.mark.parametrize(
    ("tier", "total"),
    [
        ("default", "0.00325"),  # gpt-5 at 1.25 and 10: 1000 * 1.25 + 200 * 10 = 3250
        ("flex", "0.001625"),  # half of it
        ("priority", "0.0065"),  # twice
    ],
)
@pytest.mark.parametrize("said_by", ["answer", "request"])
def test_flex_and_priority_cost_what_their_tier_does(tier: str, total: str, said_by: str, make: Any, book: PriceBook) -> None:
    answer = {**chat({"prompt_tokens": 1000, "completion_tokens": 200}), "model": "gpt-5"}
    asked = {"model": "gpt-5", "messages": [], "service_tier": tier}
    envelope = make({**answer, "service_tier": tier}) if said_by == "answer" else make(answer, request=asked)
    cost = derive(envelope, book)["cost"]
    assert cost["total"] == total
    assert cost["variant_source"] == (None if tier == "default" else {"service_tier": said_by})


def test_the_tier_that_was_served_counts_and_not_the_one_asked_for(make: Any, book: PriceBook) -> None:
    answer = {**chat({"prompt_tokens": 1000, "completion_tokens": 200}), "model": "gpt-5", "service_tier": "default"}
    asked = {"model": "gpt-5", "messages": [], "service_tier": "priority"}
    assert derive(make(answer, request=asked), book)["cost"]["total"] == "0.00325"


def test_a_batch_costs_half(make: Any, book: PriceBook) -> None:
    """gpt-4o at 1.25 and 5: two results of 100 * 1.25 + 20 * 5 = 225."""
    lines = [{"custom_id": n, "response": {"status_code": 200, "body": chat(USAGE)}, "error": None} for n in ("a", "b")]
    envelope = make("\n".join(json.dumps(line) for line in lines), operation="files", path="/v1/files/f/content", request=None)
    envelope["request"]["method"] = "GET"
    cost = derive(envelope, book)["cost"]
    assert (cost["total"], cost["variant"]) == ("0.00045", "processing=batch")


def test_audio_read_from_the_cache_is_not_counted_as_both(make: Any, book: PriceBook) -> None:
    """80 audio and 64 cached of 100: at least 44 of the cached are audio."""
    details = {"prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 80}}
    derived = derive(make(chat({**USAGE, **details})), book)
    assert leaves_of(derived) == {"cache_read_tokens": 20, "cache_read_audio_tokens": 44, "input_audio_tokens": 36, "output_tokens": 20}


def background(status: str, usage: dict[str, Any] | None) -> dict[str, Any]:
    return {"object": "response", "status": status, "background": True, "model": "gpt-4o", "output": [], "usage": usage}


def test_a_background_response_is_counted_where_it_is_fetched_and_only_there(make: Any, book: PriceBook) -> None:
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    started = derive(make(background("queued", None), operation="responses"), book)
    polls = []
    for status, stated in (("in_progress", None), ("completed", usage)):
        envelope = make(background(status, stated), operation="responses", request=None)
        envelope["request"]["method"] = "GET"
        polls.append(derive(envelope, book))
    assert [each["usage"]["total_tokens"] for each in (started, *polls)] == [None, None, 7]
    assert started["cost"]["reason"] == "made in the background: the request that fetches it whole states its usage"


def test_a_background_stream_that_was_left_is_not_estimated(make: Any, book: PriceBook) -> None:
    """It goes on without its caller, who fetches the rest later."""
    first = {"type": "response.created", "response": background("in_progress", None)}
    body = sse(first, {"type": "response.output_text.delta", "delta": "Hi"})
    usage = derive(make(body, operation="responses", end="client_disconnected"), book)["usage"]
    assert (usage["source"], usage["total_tokens"]) == ("unknown", None)


def test_ollama_that_does_not_count_a_cached_prompt_is_estimated(make: Any, book: PriceBook) -> None:
    """It leaves the count out: unknown, and never 0."""
    answer = {"model": "llama3.2", "message": {"content": "Hi there"}, "done": True, "done_reason": "stop", "eval_count": 2}
    usage = derive(make(answer, provider="ollama", operation="ollama", path="/api/chat"), book)["usage"]
    assert usage["source"] == "estimated"
    assert usage["input_tokens"] > 0


def test_a_session_with_more_responses_than_are_counted_says_so(make: Any, book: PriceBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "_RESPONSES_MAX", 2)
    done = {"type": "response.done", "response": {"usage": {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}}}
    body = (json.dumps({"at_ms": 1, "type": "text", "data": json.dumps(done)}) + "\n") * 3
    envelope = make(body, operation="other", path="/v1/realtime", request=None, status=101)
    envelope["request"]["method"] = "GET"
    usage = derive(envelope, book)["usage"]
    assert (usage["total_tokens"], usage["method"]) == (22, "of the first 2 responses alone")


def test_a_batch_of_several_models_has_no_one_price(make: Any, book: PriceBook) -> None:
    lines = [
        {"custom_id": name, "response": {"status_code": 200, "body": {**chat(USAGE), "model": name}}, "error": None}
        for name in ("gpt-4o", "gpt-4o-mini")
    ]
    envelope = make("\n".join(json.dumps(line) for line in lines), operation="files", path="/v1/files/f/content", request=None)
    envelope["request"]["method"] = "GET"
    derived = derive(envelope, book)
    assert leaves_of(derived) == {"input_tokens": 200, "output_tokens": 40}
    assert (derived["model"], derived["cost"]["total"], derived["usage"]["method"]) == (None, None, "results of several models")


def test_a_batch_with_one_unreadable_result_is_unknown_not_too_little(make: Any, book: PriceBook) -> None:
    lines = [{"custom_id": n, "response": {"status_code": 200, "body": chat({**USAGE, "prompt_tokens": n})}} for n in (5, -5)]
    envelope = make("\n".join(json.dumps(line) for line in lines), operation="files", path="/v1/files/f/content", request=None)
    envelope["request"]["method"] = "GET"
    derived = derive(envelope, book)
    assert (derived["usage"]["source"], derived["parse_error"]) == ("unknown", "usage: prompt_tokens is not a number of tokens")


def test_another_file_is_no_batch(make: Any, book: PriceBook) -> None:
    envelope = make('{"messages": [], "usage": {"prompt_tokens": 5}}', operation="files", path="/v1/files/f/content", request=None)
    envelope["request"]["method"] = "GET"
    usage = derive(envelope, book)["usage"]
    assert (usage["total_tokens"], usage["reason"]) == (None, "a GET generates nothing")


def test_an_openai_batch_that_is_looked_at_is_no_result(make: Any, book: PriceBook) -> None:
    """Its object counts tokens too, once it is done: they are those of the results' file."""
    usage = {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}
    envelope = make({"id": "batch_1", "object": "batch", "usage": usage}, operation="batches", path="/v1/batches/batch_1", request=None)
    envelope["request"]["method"] = "GET"
    assert derive(envelope, book)["usage"]["total_tokens"] is None


@pytest.mark.parametrize("operation", ["converse", "invoke"])
def test_a_bedrock_stream_cut_before_its_usage_is_estimated(operation: str, make: Any, frame: Any, book: PriceBook) -> None:
    delta = b'{"contentBlockIndex": 0, "delta": {"text": "The capital of France is Paris."}}'
    if operation == "invoke":
        inner = base64.b64encode(b'{"contentBlockDelta": ' + delta + b"}").decode()
        body = frame("chunk", json.dumps({"bytes": inner}).encode())
    else:
        body = frame("contentBlockDelta", delta)
    asked = {"messages": [{"role": "user", "content": [{"text": "What is the capital of France?"}]}], "inferenceConfig": {"maxTokens": 9}}
    envelope = make(
        None, provider="aws", operation=operation, path=f"/model/amazon.nova-lite-v1%3A0/{operation}-stream", request=asked, end="timeout"
    )
    envelope["response"] |= {"body": base64.b64encode(body[:]).decode(), "body_encoding": "base64"}
    usage = derive(envelope, book)["usage"]
    assert (usage["source"], usage["input_tokens"], usage["output_tokens"]) == ("estimated", 14, 7)


def test_an_ollama_stream_cut_before_its_counts_is_estimated(make: Any, book: PriceBook) -> None:
    lines = [{"model": "llama3.2", "message": {"content": each}, "done": False} for each in ("The capital of France", " is Paris.")]
    body = "\n".join(json.dumps(line) for line in lines) + '\n{"model": "lla'
    derived = derive(make(body, provider="ollama", operation="ollama", path="/api/chat", end="client_disconnected"), book)
    assert (derived["usage"]["source"], derived["usage"]["output_tokens"], derived["parse_error"]) == ("estimated", 7, None)


def test_an_embedding_that_states_nothing_is_counted_as_its_text_alone(make: Any, book: PriceBook) -> None:
    """No chat framing: "Hello" and " world" are two tokens."""
    for asked in ({"content": {"parts": [{"text": "Hello world"}]}}, {"requests": [{"content": {"parts": [{"text": "Hello world"}]}}]}):
        envelope = make({"embeddings": [{"values": [0.1]}]}, provider="gemini", operation="embed_content", request=asked)
        usage = derive(envelope, book)["usage"]
        assert (usage["source"], usage["input_tokens"], usage["output_tokens"]) == ("estimated", 2, 0)


def test_a_batch_kept_in_part_is_scaled_to_its_bytes_and_marked(make: Any, book: PriceBook) -> None:
    """Ten results, of which the record holds the first two, and a piece of the third."""
    line = json.dumps({"custom_id": "x", "response": {"status_code": 200, "body": chat(USAGE)}, "error": None}) + "\n"
    body = line * 2 + line[:40]
    whole = round(len(body) * 5)
    envelope = make(body, operation="files", path="/v1/files/f/content", request=None, truncated=True, body_bytes=whole)
    envelope["request"]["method"] = "GET"
    derived = derive(envelope, book)
    usage = derived["usage"]
    assert (usage["source"], usage["input_tokens"], usage["output_tokens"]) == ("estimated", 1000, 200)
    assert usage["method"] == "the sum of the part that is kept; scaled to the whole's bytes"
    assert derived["parse_error"] is None


@pytest.mark.parametrize(("truncated", "source"), [(False, "provider"), (True, "estimated")])
def test_a_session_is_exact_unless_its_record_is_cut(truncated: bool, source: str, make: Any, book: PriceBook) -> None:
    """However a session ends, each of its responses stated its own usage."""
    done = {
        "type": "response.done",
        "response": {"status": "completed", "usage": {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}},
    }
    body = json.dumps({"at_ms": 1, "type": "text", "data": json.dumps(done)}) + "\n"
    facts = {"path": "/v1/realtime?model=gpt-realtime", "end": "client_disconnected", "status": 101, "truncated": truncated}
    envelope = make(body, operation="other", request=None, **facts)
    envelope["request"]["method"] = "GET"
    usage = derive(envelope, book)["usage"]
    assert (usage["source"], usage["total_tokens"]) == (source, 11)
