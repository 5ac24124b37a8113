"""A record in full, for people: whatever is in it."""

import json
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reader.show import NoBody, body, page
from reader.turns import Turn, turns

RECORD: dict[str, Any] = {
    "request_id": "019aa0b1-2c3d-7abc-8def-000000000000",
    "client_request_id": "mine-1",
    "caller": {"user_id": "alice", "session_id": "s-1", "properties": {"team": "blue"}, "user_agent": "sdk/1"},
    "target": {"provider": "openai", "upstream": "openai", "operation": "chat", "url": "https://api.openai.com/v1/chat/completions"},
    "request": {
        "method": "POST",
        "path": "/v1/chat/completions",
        "body": json.dumps({"messages": [{"role": "user", "content": "How far is\nthe moon?"}]}),
        "body_encoding": "utf-8",
        "body_bytes": 70,
        "truncated": False,
    },
    "response": {
        "status": 200,
        "end": "complete",
        "body": "{}",
        "body_encoding": "utf-8",
        "body_bytes": 2,
        "truncated": False,
        "error": None,
    },
    "timing": {"received_at": "2026-11-21T10:30:15.123456Z", "duration_ms": 812.5, "proxy_ms": 0.4, "first_byte_ms": 300, "chunks": 12},
    "policy": {"omitted": [], "dropped": []},
    "derived": {
        "model": "gpt-4o-mini-2024-07-18",
        "model_requested": "gpt-4o-mini",
        "params": {"temperature": 0.2},
        "answer": {
            "text": "Far away.",
            "reasoning": "Hm.",
            "refusal": None,
            "tool_calls": [{"id": "1", "name": "look", "arguments": "{}"}],
        },
        "finish_reasons": ["stop"],
        "usage": {
            "input_tokens": 1200,
            "cache_read_tokens": 5,
            "output_tokens": 34,
            "reasoning_tokens": 0,
            "total_tokens": 1239,
            "source": "provider",
        },
        "cost": {
            "input": "0.00018",
            "output": "0.0000204",
            "tools": "0",
            "total": "0.0002004",
            "source": "book",
            "price_version": "prices 1",
            "priced_as": "openai/gpt-4o-mini",
            "rates": {"input_tokens": "0.15", "output_tokens": "0.6"},
        },
    },
    "lake": {"log": "k-calls-0-1", "offset": 17, "ingested_at": "2026-11-21T10:30:17Z"},
}


def shown(record: dict[str, Any], width: int = 100) -> str:
    return page(record, width=width, zone=UTC)


def test_all_of_a_call_is_there() -> None:
    text = shown(RECORD)
    for part in (
        RECORD["request_id"],
        "2026-11-21 10:30:15.123+00:00",
        "user alice",
        "session s-1",
        "their id mine-1",
        "team = blue",
        "sdk/1",
        "POST /v1/chat/completions",
        "gpt-4o-mini → gpt-4o-mini-2024-07-18",
        "temperature 0.2",
        "200 · complete",
        "user: How far is",
        "the moon?",
        "(thinks) Hm.",
        "Far away.",
        "→ look({})",
        "(finished: stop)",
        "1,200",
        "cache read",
        "1,239",
        "stated by the provider",
        "$0.0002004",
        "prices 1",
        "openai/gpt-4o-mini",
        "input $0.15, output $0.6",
        "812.5 ms",
        "12 chunks",
        "k-calls-0-1 at 17",
    ):
        assert part in text
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 80, 160])
def test_lines_fit(width: int) -> None:
    long = RECORD | {"derived": RECORD["derived"] | {"answer": {"text": "word " * 400 + "x" * 500}}}
    assert max(map(len, shown(long, width).splitlines())) <= max(width, 50)


def test_the_unknown_says_why() -> None:
    derived = RECORD["derived"] | {
        "usage": {"input_tokens": None, "total_tokens": None, "source": "unknown", "reason": "error answer"},
        "cost": {"total": None, "source": "unknown", "reason": "no price for this model", "rates": {}},
    }
    text = shown(RECORD | {"derived": derived})
    assert "unknown · error answer" in text
    assert "unknown · no price for this model" in text
    assert "$" not in text


def test_an_error_names_its_source() -> None:
    response = {"status": None, "end": "interrupted", "error": {"source": "upstream", "type": "reset", "message": "broke"}, "body": None}
    text = shown(RECORD | {"response": response, "derived": {"parse_error": "not JSON"}})
    for part in (
        "no status · cut off: the proxy's process died",
        "upstream: reset: broke",
        "parse_error not JSON",
        "(the response has no body)",
    ):
        assert part in text


def test_a_body_that_is_not_there_says_why() -> None:
    for policy, word in (
        ({"omitted": ["request"]}, "as the caller asked"),
        ({"dropped": ["request"]}, "no space"),
        ({}, "of 70 bytes is not in"),
    ):
        record = RECORD | {"policy": policy, "request": RECORD["request"] | {"body": None}}
        assert word in shown(record)
        with pytest.raises(NoBody, match=word):
            body(record, "request")


def test_bodies_come_as_they_were() -> None:
    assert body(RECORD, "response") == b"{}"
    assert body({"response": {"body": "AP8=", "body_encoding": "base64"}}, "response") == b"\x00\xff"
    with pytest.raises(NoBody):
        body({"response": {"body": "?", "body_encoding": "base64"}}, "response")
    assert "(2 bytes that are no text)" in shown({"response": {"body": "AP8=", "body_encoding": "base64"}})


def test_a_message_that_could_not_be_parsed() -> None:
    record = {"schema": "record.v1", "request_id": None, "raw": "anVuaw==", "derived": {"parse_error": "not JSON"}, "lake": RECORD["lake"]}
    text = shown(record)
    assert "could not be parsed" in text
    assert "k-calls-0-1 at 17" in text


def test_an_answer_cannot_move_the_cursor() -> None:
    assert "\x1b" not in shown(RECORD | {"derived": {"answer": {"text": "\x1b[2J\x07"}}, "hostname": "\x1b]0;x"})


NAMES = sorted({*RECORD, *RECORD["derived"], *RECORD["request"], "role", "content", "text"})
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(sorted(RECORD)), ANYTHING), ANYTHING)
def test_any_record_has_a_page(record: dict[str, Any], asked: Any) -> None:
    assert shown(record).endswith("\n")
    assert shown(RECORD | {"request": {"body": json.dumps(asked), "body_encoding": "utf-8"}}).endswith("\n")


HI = [{"role": "user", "content": "Hi"}]
BRIEF = [Turn("system", "Be brief."), Turn("user", "Hi")]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
DATA_URL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"messages": [{"role": "system", "content": "Be brief."}, *HI]}, BRIEF),
        ({"system": "Be brief.", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, BRIEF),
        ({"system": [{"type": "text", "text": "Be brief."}], "messages": HI}, BRIEF),
        ({"instructions": "Be brief.", "input": "Hi"}, BRIEF),
        ({"systemInstruction": {"parts": [{"text": "Be brief."}]}, "contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}, BRIEF),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}, BRIEF[1:]),
        ({"input": ["Hi", "there"]}, [Turn("user", "Hi"), Turn("user", "there")]),
        ({"prompt": "Hi"}, BRIEF[1:]),
        ({"messages": [CALL]}, [Turn("assistant", "→ f({})")]),
        ({"messages": "?"}, [Turn("user", "?")]),
        ({"other": 1}, []),
        ([], []),
    ],
)
def test_turns_of_every_form(asked: Any, found: list[Turn]) -> None:
    assert turns(asked) == found


def test_files_are_shown_by_kind_and_size() -> None:
    anthropic = {"type": "image", "source": {"media_type": "image/png", "data": "AAAA"}}
    (turn,) = turns({"messages": [{"role": "user", "content": [DATA_URL, anthropic, {"type": "x", "file": "A" * 4000}]}]})
    assert turn.text.splitlines() == [
        '{"type": "image_url", "image_url": {"url": "[image/png, 3 bytes]"}}',
        "[image/png, 3 bytes]",
        '{"type": "x", "file": "[3,000 bytes]"}',
    ]
