"""Envelopes: the published schema, readable bodies, no secrets, nothing omitted left behind."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import brotli
import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clearpane.contract
from clearpane.contract.identifiers import new_request_id, new_spool_id
from proxy.shipper import envelopes, omission
from proxy.spool import SpoolDamaged
from proxy.spool.frames import completed_payload

SOURCE = new_spool_id()
SCHEMA = json.loads((Path(clearpane.contract.__file__).parent / "envelope.v1.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
KEY = "sk-proj-aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5zA7bC9dE1fG3"


def completed(lab: Any, request: bytes = b"{}", response: bytes = b"{}", attempt: int = 1, facts: dict[str, Any] | None = None) -> Any:
    payload = b"".join(completed_payload(orjson.dumps(facts or lab.facts()), request, response))
    message = envelopes.completed(payload, SOURCE, 3, attempt)
    envelope = orjson.loads(message.data)
    VALIDATOR.validate(envelope)
    assert message.request_id == envelope["request_id"]
    return envelope


def test_every_kind_follows_the_schema(lab: Any) -> None:
    open_facts = lab.admission(lab.facts())
    envelope = completed(lab, attempt=2)
    assert (envelope["source"], envelope["sequence"], envelope["attempt"]) == (SOURCE, 3, 2)
    for message in (
        envelopes.started(open_facts, SOURCE, 0),
        envelopes.interrupted(open_facts, SOURCE, 0, 1),
        envelopes.placeholder(new_request_id(), SOURCE, 0),
        envelopes.shrunk(envelopes.started(open_facts, SOURCE, 0)),
    ):
        VALIDATOR.validate(orjson.loads(message.data))


def test_an_interrupted_record_is_the_same_every_time(lab: Any) -> None:
    facts = lab.facts()
    payload = lab.admission(facts)
    first = envelopes.interrupted(payload, SOURCE, 3, 1)
    assert first == envelopes.interrupted(payload, SOURCE, 3, 1)
    envelope = orjson.loads(first.data)
    assert (envelope["event"], envelope["response"]["end"]) == ("completed", "interrupted")
    assert (envelope["response"]["error"]["source"], envelope["recorded_at"]) == ("proxy", facts["recorded_at"])


@pytest.mark.parametrize(
    ("encoding", "wire"), [(None, b'{"a":1}'), ("gzip", gzip.compress(b'{"a":1}')), ("br", brotli.compress(b'{"a":1}'))]
)
def test_bodies_are_readable(lab: Any, encoding: str | None, wire: bytes) -> None:
    envelope = completed(lab, response=wire, facts=lab.facts(content_encoding=encoding))
    response = envelope["response"]
    assert (response["body"], response["body_encoding"], response["content_encoding"]) == ('{"a":1}', "utf-8", encoding)


@pytest.mark.parametrize("encoding", ["gzip", "unheard-of"])
def test_what_cannot_be_decoded_stays_as_it_was(lab: Any, encoding: str) -> None:
    envelope = completed(lab, response=b"not what it says", facts=lab.facts(content_encoding=encoding))
    assert envelope["response"]["body_encoding"] == "base64"
    assert base64.b64decode(envelope["response"]["body"]) == b"not what it says"


def test_a_cut_body_is_read_as_far_as_it_goes(lab: Any) -> None:
    wire = gzip.compress("data: ✓ ".encode() * 2000, 0)[:5000]
    for facts in (lab.facts(content_encoding="gzip", truncated=True), lab.facts(content_encoding="gzip", end="client_disconnected")):
        envelope = completed(lab, response=wire, facts=facts)
        assert envelope["response"]["body_encoding"] == "utf-8"
        assert envelope["response"]["body"].startswith("data: ✓ data: ✓")


def test_a_bomb_stays_small(lab: Any) -> None:
    wire = gzip.compress(b"\0" * (64 << 20))
    envelope = completed(lab, response=wire, facts=lab.facts(content_encoding="gzip"))
    assert base64.b64decode(envelope["response"]["body"]) == wire


def test_empty_bodies_are_null(lab: Any) -> None:
    envelope = completed(lab, b"", b"")
    assert (envelope["request"]["body"], envelope["request"]["body_encoding"]) == (None, None)


@pytest.mark.parametrize("where", ["request", "response", "gzip", "user", "path"])
def test_a_pasted_key_is_replaced_and_counted(lab: Any, where: str) -> None:
    facts = lab.facts(content_encoding="gzip" if where == "gzip" else None)
    text = f'{{"content":"use {KEY} please"}}'.encode()
    if where == "user":
        facts["caller"]["user_id"] = KEY
    if where == "path":
        facts["request"]["path"] = f"/v1/x/{KEY}?a=b"
    envelope = completed(
        lab,
        text if where == "request" else b"{}",
        text if where == "response" else gzip.compress(text) if where == "gzip" else b"",
        facts=facts,
    )
    assert KEY not in json.dumps(envelope)
    assert "[redacted]" in json.dumps(envelope)
    assert envelope["policy"]["redactions"] == 1


@given(st.binary(max_size=200))
def test_garbage_raises_the_spools_error_only(payload: bytes) -> None:
    for make in (envelopes.completed, envelopes.interrupted):
        with pytest.raises(SpoolDamaged):
            make(payload, SOURCE, 0, 1)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_json_raises_the_spools_error_only(value: Any) -> None:
    with pytest.raises(SpoolDamaged):
        envelopes.started(orjson.dumps(value), SOURCE, 0)


# Omission

SECRET_WORDS = "the patient's diagnosis"
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1763719299,
    "model": "gpt-4o-2024-08-06",
    "system_fingerprint": "fp_44709d6fcb",
    "service_tier": "default",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": SECRET_WORDS,
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "secret_fn", "arguments": '{"q":"x"}'}}],
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 11,
        "completion_tokens": 3,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    },
}


def test_the_skeleton_of_an_answer_keeps_what_costs() -> None:
    kept = orjson.loads(omission.skeleton(json.dumps(CHAT)) or "")
    assert kept["usage"] == CHAT["usage"]
    assert (kept["model"], kept["id"], kept["choices"][0]["finish_reason"]) == ("gpt-4o-2024-08-06", "chatcmpl-1", "stop")
    assert "message" in kept["choices"][0]
    assert not [word for word in ("patient", "secret_fn", "arguments", "content", "assistant") if word in json.dumps(kept)]


def test_the_skeleton_of_a_request_keeps_its_parameters() -> None:
    request = {
        "model": "claude-x",
        "max_tokens": 100,
        "temperature": 0.5,
        "stream": True,
        "system": SECRET_WORDS,
        "messages": [{"role": "user", "content": SECRET_WORDS}],
        "metadata": {"user_id": "u1", "temperature": 36.6},
        "tools": [{"name": "secret_fn"}],
        "stream_options": {"include_usage": True},
    }
    kept = orjson.loads(omission.skeleton(json.dumps(request)) or "")
    assert kept == {
        "model": "claude-x", "max_tokens": 100, "temperature": 0.5, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_the_skeleton_of_a_stream_keeps_its_events() -> None:
    events = [
        {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "content": [], "usage": {"input_tokens": 9}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SECRET_WORDS}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    ]
    stream = "".join(f"event: {event['type']}\ndata: {orjson.dumps(event).decode()}\n\n" for event in events)
    stream += f": {SECRET_WORDS}\n\ndata: [DONE]\n\n"
    kept = omission.skeleton(stream) or ""
    assert "patient" not in kept
    assert '"usage":{"input_tokens":9}' in kept
    assert '"usage":{"output_tokens":5}' in kept
    assert '"stop_reason":"end_turn"' in kept
    assert kept.count("event: ") == 3
    assert "data: [DONE]" in kept


def test_gemini_and_ollama() -> None:
    gemini = {
        "candidates": [{"content": {"parts": [{"text": SECRET_WORDS}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 5, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}]},
        "modelVersion": "gemini-2.5-flash",
    }
    kept = orjson.loads(omission.skeleton(json.dumps(gemini)) or "")
    assert kept == {"candidates": [{"finishReason": "STOP", "index": 0}], **{k: gemini[k] for k in ("usageMetadata", "modelVersion")}}
    lines = '{"model":"llama3","message":{"content":"secret"},"done":false}\n{"model":"llama3","done":true,"eval_count":7}\n'
    assert omission.skeleton(lines) == '{"model":"llama3","message":{},"done":false}\n{"model":"llama3","done":true,"eval_count":7}\n'


words = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x4F00), min_size=3, max_size=9)
private = st.recursive(words, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*CHAT, "text", "delta", "message"]), inner))


@given(private, st.booleans())
def test_no_word_survives_whatever_its_key(value: Any, stream: bool) -> None:
    text = json.dumps({"choices": value, "usage": value, "x": value}, ensure_ascii=False)
    kept = omission.skeleton(f"data: {text}\n\n" if stream else text) or ""
    assert kept.isascii()


@given(st.lists(st.sampled_from(["event: diagnosis", "data: private", "data: [DONE]", "retry: 5", "word", ""]), max_size=6))
def test_free_text_has_no_skeleton(lines: list[str]) -> None:
    assert omission.skeleton("\n".join(lines)) is None


def test_only_line_ends_end_a_line() -> None:
    event = 'data: {"choices":[{"delta":{"content":"a\u2028b\x85c"}}],"usage":{"total_tokens":3}}'
    for end in ("\n", "\r\n", "\r"):
        assert '"usage":{"total_tokens":3}' in (omission.skeleton(event + 2 * end) or "")


def test_the_skeleton_of_a_websocket_keeps_what_its_messages_cost() -> None:
    messages = [
        {"type": "session.created", "session": {"model": "gpt-realtime", "instructions": "PRIVATE", "tools": [{"name": "PRIVATE"}]}},
        {"type": "response.output_audio.delta", "delta": "PRIVATE"},
        {"type": "response.done", "response": {"output": [{"content": [{"transcript": "PRIVATE"}]}], "usage": {"total_tokens": 7}}},
    ]
    lines = [{"at_ms": 1.5, "type": "text", "data": json.dumps(message)} for message in messages]
    gemini = {
        "serverContent": {"modelTurn": {"parts": [{"text": "PRIVATE"}]}, "turnComplete": True},
        "usageMetadata": {"totalTokenCount": 7},
    }
    binary = base64.b64encode(json.dumps(gemini).encode()).decode()
    ends = [{"at_ms": 2.5, "type": "binary", "data": data} for data in ("UFJJVkFURQ==", binary)] + [
        {"at_ms": 3.5, "type": "close", "code": 1000, "data": "PRIVATE"}
    ]
    kept = omission.skeleton("".join(json.dumps(line) + "\n" for line in lines + ends)) or ""
    assert "PRIVATE" not in kept
    assert "UFJJVkFURQ" not in kept
    found = [json.loads(line) for line in kept.splitlines()]
    assert [line.pop("at_ms") for line in found] == [1.5, 1.5, 1.5, 2.5, 2.5, 3.5]
    assert json.loads(base64.b64decode(found[4].pop("data"))) == {
        "serverContent": {"turnComplete": True},
        "usageMetadata": {"totalTokenCount": 7},
    }
    assert found[3:] == [{"type": "binary"}, {"type": "binary"}, {"type": "close", "code": 1000}]
    assert [json.loads(line["data"]) for line in found[:3]] == [
        {"type": "session.created", "session": {"model": "gpt-realtime"}},
        {"type": "response.output_audio.delta"},
        {"type": "response.done", "response": {"output": [{}], "usage": {"total_tokens": 7}}},
    ]


def test_omitted_sides_leave_their_skeletons_only(lab: Any) -> None:
    body = json.dumps(CHAT).encode()
    envelope = completed(lab, body, gzip.compress(body), facts=lab.facts(omitted=("request", "response"), content_encoding="gzip"))
    assert "patient" not in json.dumps(envelope)
    assert orjson.loads(envelope["response"]["body"])["usage"] == CHAT["usage"]
    envelope = completed(lab, b"\x00\xff binary", body, facts=lab.facts(omitted=("request",)))
    assert (envelope["request"]["body"], envelope["request"]["body_encoding"]) == (None, None)
    assert "patient" in envelope["response"]["body"]


def test_a_shrunk_record_keeps_what_costs(lab: Any) -> None:
    payload = b"".join(completed_payload(orjson.dumps(lab.facts()), b"free text", json.dumps(CHAT).encode()))
    envelope = orjson.loads(envelopes.shrunk(envelopes.completed(payload, SOURCE, 0, 1)).data)
    VALIDATOR.validate(envelope)
    assert (envelope["request"]["body"], envelope["policy"]["dropped"]) == (None, ["request", "response"])
    assert orjson.loads(envelope["response"]["body"])["usage"] == CHAT["usage"]
