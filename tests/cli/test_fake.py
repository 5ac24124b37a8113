"""The fake provider: same request, same bytes; what it states can be counted by hand; garbage is refused."""

import asyncio
import dataclasses
import gzip
import hashlib
import json
from decimal import Decimal
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.cli.fake import FakeProvider, Pace, dialects, prose, tools
from clearpane.cli.fake.answer import Answer
from clearpane.cli.fake.models import CATALOGUE
from clearpane.cli.fake.refusal import Refusal

KEY = {"Authorization": "Bearer sk-test"}
ANTHROPIC = {"x-api-key": "sk-ant-test", "anthropic-version": "2023-06-01"}
HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}]}
WEATHER = {
    "name": "weather",
    "description": "current weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
async def provider():
    async with FakeProvider(pace=Pace(0)) as running:
        yield running


async def post(provider: FakeProvider, path: str, body: Any, headers: dict[str, str] = KEY) -> tuple[int, dict[str, str], bytes]:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(provider.url + path, data=raw, headers={"Accept-Encoding": "identity", **headers}) as answer,
    ):
        return answer.status, {key.lower(): value for key, value in answer.headers.items()}, await answer.read()


def events(raw: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in raw.split(b"\n") if line.startswith(b"data: ")]
    return [orjson.loads(line) for line in lines if line != b"[DONE]"]


async def test_the_same_request_gets_the_same_bytes(provider):
    first, second = await post(provider, "/v1/chat/completions", HELLO), await post(provider, "/v1/chat/completions", HELLO)
    assert first[2] == second[2]
    assert first[1]["x-request-id"] == second[1]["x-request-id"]


async def test_usage_is_the_number_of_words(provider):
    _, _, raw = await post(provider, "/v1/chat/completions", HELLO)
    answer = orjson.loads(raw)
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == len(answer["choices"][0]["message"]["content"].split())
    assert answer["usage"]["total_tokens"] == 3 + answer["usage"]["completion_tokens"]


async def test_a_stream_says_the_same_as_the_whole_answer(provider):
    _, _, whole = await post(provider, "/v1/chat/completions", HELLO)
    _, _, raw = await post(provider, "/v1/chat/completions", {**HELLO, "stream": True, "stream_options": {"include_usage": True}})
    chunks = events(raw)
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert said == orjson.loads(whole)["choices"][0]["message"]["content"]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["usage"] == orjson.loads(whole)["usage"]
    assert raw.endswith(b"data: [DONE]\n\n")


async def test_a_stream_states_no_usage_unless_asked(provider):
    _, _, raw = await post(provider, "/v1/chat/completions", {**HELLO, "stream": True})
    assert b'"usage"' not in raw
    assert provider.ledger.entries[-1].usage is None
    assert provider.ledger.entries[-1].delivered


async def test_a_long_prompt_is_cached_in_steps_of_128(provider):
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "word " * 1200}]}
    _, _, raw = await post(provider, "/v1/chat/completions", body)
    assert orjson.loads(raw)["usage"]["prompt_tokens_details"]["cached_tokens"] == 1152
    entry = provider.ledger.entries[-1]
    output = entry.tokens.output
    assert entry.cost == Decimal(48 * 2 + 1152 * Decimal("0.5") + output * 8) / 1_000_000


async def test_reasoning_stands_inside_the_completion(provider):
    _, _, raw = await post(provider, "/v1/chat/completions", {**HELLO, "model": "o4-mini"})
    usage = orjson.loads(raw)["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 64
    assert usage["completion_tokens"] > 64


async def test_tools_are_called_once_for_each_name(provider):
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "What is the weather in Paris and in Oslo?"}],
        "tools": [{"type": "function", "function": WEATHER}],
    }
    _, _, raw = await post(provider, "/v1/chat/completions", body)
    choice = orjson.loads(raw)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert [json.loads(call["function"]["arguments"]) for call in choice["message"]["tool_calls"]] == [{"city": "Paris"}, {"city": "Oslo"}]
    _, _, raw = await post(provider, "/v1/chat/completions", {**body, "stream": True})
    parts: dict[int, str] = {}
    for chunk in events(raw):
        for call in chunk["choices"][0]["delta"].get("tool_calls", []):
            parts[call["index"]] = parts.get(call["index"], "") + call["function"]["arguments"]
    assert parts == {0: '{"city":"Paris"}', 1: '{"city":"Oslo"}'}


async def test_responses_number_their_events_and_end_with_the_whole(provider):
    body = {"model": "o4-mini", "input": "one two three"}
    _, _, whole = await post(provider, "/v1/responses", body)
    _, _, raw = await post(provider, "/v1/responses", {**body, "stream": True})
    seen = events(raw)
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[0]["type"] == "response.created"
    assert seen[-1]["type"] == "response.completed"
    assert seen[-1]["response"]["usage"] == orjson.loads(whole)["usage"]
    said = "".join(event["delta"] for event in seen if event["type"] == "response.output_text.delta")
    assert said == orjson.loads(whole)["output"][-1]["content"][0]["text"]
    assert [item["type"] for item in orjson.loads(whole)["output"]] == ["reasoning", "message"]


async def test_anthropic_writes_the_cache_in_the_first_turn_and_reads_it_later(provider):
    system = [{"type": "text", "text": "a b c d e", "cache_control": {"type": "ephemeral"}}]
    body = {"model": "claude-sonnet-4-6", "max_tokens": 99, "system": system, "messages": [{"role": "user", "content": "one two"}]}
    _, headers, raw = await post(provider, "/v1/messages", body, ANTHROPIC)
    usage = orjson.loads(raw)["usage"]
    assert headers["request-id"].startswith("req_")
    assert (usage["input_tokens"], usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]) == (2, 5, 0)
    later = [*body["messages"], {"role": "assistant", "content": "three"}, {"role": "user", "content": "four"}]
    _, _, raw = await post(provider, "/v1/messages", {**body, "messages": later}, ANTHROPIC)
    usage = orjson.loads(raw)["usage"]
    assert (usage["input_tokens"], usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]) == (4, 0, 5)


async def test_anthropic_streams_from_message_start_to_message_stop(provider):
    body = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "one two"}], "stream": True}
    _, _, raw = await post(provider, "/v1/messages", body, ANTHROPIC)
    seen = events(raw)
    assert seen[0]["type"] == "message_start"
    assert seen[0]["message"]["usage"]["output_tokens"] == 1
    assert seen[-2]["delta"]["stop_reason"] == "max_tokens"
    assert seen[-2]["usage"]["output_tokens"] == 5
    assert seen[-1] == {"type": "message_stop"}
    assert sum(event["type"] == "content_block_delta" for event in seen) == 5


async def test_embeddings_come_as_numbers_and_packed(provider):
    body = {"model": "text-embedding-3-small", "input": ["one two", "three"], "dimensions": 4}
    _, _, plain = await post(provider, "/v1/embeddings", body)
    _, _, packed = await post(provider, "/v1/embeddings", {**body, "encoding_format": "base64"})
    assert [len(item["embedding"]) for item in orjson.loads(plain)["data"]] == [4, 4]
    assert isinstance(orjson.loads(packed)["data"][0]["embedding"], str)
    assert orjson.loads(plain)["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_json_is_compressed_for_who_accepts_it(provider):
    _, _, plain = await post(provider, "/v1/chat/completions", HELLO)
    _, headers, packed = await post(provider, "/v1/chat/completions", HELLO, {**KEY, "Accept-Encoding": "gzip, deflate"})
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == plain


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (HELLO, {}, 401, "invalid_api_key"),
        (HELLO, {"Authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        (HELLO, {**KEY, "Fake-Status": "429"}, 429, "rate_limit_exceeded"),
        (HELLO, {**KEY, "Fake-Status": "500"}, 500, None),
        ({**HELLO, "model": "gpt-9"}, KEY, 404, "model_not_found"),
        ({**HELLO, "temperature": 3}, KEY, 400, "decimal_above_max_value"),
        ({"model": "gpt-4o-mini"}, KEY, 400, "missing_required_parameter"),
        (b"{", KEY, 400, None),
    ],
)
async def test_openai_errors_have_its_shape(provider, body, headers, status, code):
    got, answered, raw = await post(provider, "/v1/chat/completions", body, headers)
    error = orjson.loads(raw)["error"]
    assert (got, error["code"]) == (status, code)
    assert error["type"]
    assert error["message"]
    assert answered["x-request-id"].startswith("req_")
    assert provider.ledger.entries[-1].status == status


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"anthropic-version": "2023-06-01"}, 401, "authentication_error"),
        ({**ANTHROPIC, "Fake-Status": "429"}, 429, "rate_limit_error"),
        ({**ANTHROPIC, "Fake-Status": "529"}, 529, "overloaded_error"),
        (ANTHROPIC, 400, "invalid_request_error"),
    ],
)
async def test_anthropic_errors_have_its_shape(provider, headers, status, kind):
    got, answered, raw = await post(provider, "/v1/messages", {"model": "claude-haiku-4-5"}, headers)
    assert got == status
    assert orjson.loads(raw)["type"] == "error"
    assert orjson.loads(raw)["error"]["type"] == kind
    assert orjson.loads(raw)["request_id"] == answered["request-id"]


async def test_each_maker_lists_its_own_models(provider):
    async with aiohttp.ClientSession() as session:
        async with session.get(provider.url + "/v1/models", headers=KEY) as answer:
            ours = {model["id"] for model in (await answer.json())["data"]}
        async with session.get(provider.url + "/v1/models", headers=ANTHROPIC) as answer:
            theirs = {model["id"] for model in (await answer.json())["data"]}
    assert ours == {model.name for model in CATALOGUE if model.maker == "openai"}
    assert theirs == {model.snapshot for model in CATALOGUE if model.maker == "anthropic"}


async def test_the_ledger_says_what_was_stated(provider):
    raw = orjson.dumps(HELLO)
    _, headers, body = await post(provider, "/v1/chat/completions", raw)
    async with aiohttp.ClientSession() as session, session.get(provider.url + "/_ledger") as answer:
        (entry,) = await answer.json()
    assert entry["id"] == orjson.loads(body)["id"]
    assert entry["usage"] == orjson.loads(body)["usage"]
    assert entry["request_id"] == headers["x-request-id"]
    assert entry["request_sha256"] == hashlib.sha256(raw).hexdigest()
    output = entry["usage"]["completion_tokens"]
    assert Decimal(entry["cost"]) == (3 * Decimal("0.15") + output * Decimal("0.60")) / 1_000_000


async def test_a_caller_who_leaves_was_told_no_usage():
    async with FakeProvider(pace=Pace(0.5)) as provider:
        body = orjson.dumps({**HELLO, "stream": True, "stream_options": {"include_usage": True}})
        async with aiohttp.ClientSession() as session:
            answer = await session.post(provider.url + "/v1/chat/completions", data=body, headers=KEY)
            await answer.content.readany()
            answer.close()
        async with asyncio.timeout(10):
            while not provider.ledger.entries:
                await asyncio.sleep(0.01)
    (entry,) = provider.ledger.entries
    assert not entry.delivered
    assert entry.usage is None


async def test_a_real_pace_takes_time():
    async with FakeProvider(pace=Pace(0.5)) as provider:
        begun = asyncio.get_running_loop().time()
        await post(provider, "/v1/chat/completions", {**HELLO, "max_tokens": 1})
        assert asyncio.get_running_loop().time() - begun >= 0.09


def test_every_pace_lies_within_its_bounds():
    for seed in ("0" * 64, "f" * 64):
        assert 0.18 <= Pace().first_s(seed) <= 0.42
        assert all(0.010 <= Pace().token_s(seed, index) <= 0.040 for index in range(100))


@given(st.text())
def test_pieces_count_as_words(text):
    said, cut = prose.answer(text, None)
    assert "".join(prose.pieces(said)) == said
    assert len(prose.pieces(said)) == prose.count(said)
    assert not cut


@given(st.text(), st.integers(min_value=1, max_value=60))
def test_an_answer_keeps_to_its_limit(text, limit):
    said, cut = prose.answer(text, limit)
    assert prose.count(said) <= limit
    assert cut == (prose.count(said) < prose.count(prose.answer(text, None)[0]))


@given(st.text())
def test_halves_are_the_whole(text):
    assert "".join(tools.halves(text)) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def respond_or_refuse(path: str, body: bytes) -> Answer | Refusal:
    try:
        return dialects.respond("POST", path, {"x-api-key": "sk-ant-test"}, body)
    except Refusal as refusal:
        return refusal


MODELS = st.sampled_from([model.name for model in CATALOGUE])
KEYS = ("messages", "input", "prompt", "tools", "system", "max_tokens", "stream", "stream_options", "n", "tool_choice", "dimensions")


@given(path=st.sampled_from(list(dialects.ROUTES)), model=MODELS, rest=st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_json_is_answered_or_refused(path, model, rest):
    body = orjson.dumps({"model": model, **rest})
    outcome = respond_or_refuse(path, body)
    if isinstance(outcome, Refusal):
        assert 400 <= outcome.status < 500
    else:
        assert min(dataclasses.astuple(outcome.tokens)) >= 0
        orjson.dumps(outcome.body)


@given(st.binary())
def test_any_bytes_are_answered_or_refused(raw):
    with pytest.raises(Refusal):
        dialects.respond("POST", "/v1/messages", {"x-api-key": "sk-ant-test"}, raw)
