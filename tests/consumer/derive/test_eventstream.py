"""AWS event streams: what is whole is read, what is damaged is named, and nothing makes it raise or run away."""

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.contract import eventstream
from consumer.derive import PriceBook, derive

PAYLOADS = st.lists(st.binary(max_size=40), min_size=1, max_size=5)


def decoded(data: bytes) -> list[bytes]:
    return [message.payload for message in eventstream.decode(data).messages]


@given(PAYLOADS)
def test_what_was_framed_comes_out(frame: Any, payloads: list[bytes]) -> None:
    frames = [frame("chunk", payload) for payload in payloads]
    found = eventstream.decode(b"".join(frames))
    assert [message.payload for message in found.messages] == payloads
    assert [message.end for message in found.messages] == [len(b"".join(frames[: at + 1])) for at in range(len(frames))]
    assert {message.headers[":event-type"] for message in found.messages} == {"chunk"}
    assert (found.damaged, found.torn, found.full) == (False, False, False)


@given(PAYLOADS, st.data())
def test_a_cut_loses_only_what_it_cuts(frame: Any, payloads: list[bytes], data: st.DataObject) -> None:
    frames = [frame("chunk", payload) for payload in payloads]
    whole = b"".join(frames)
    at = data.draw(st.integers(0, len(whole)))
    found = eventstream.decode(whole[:at])
    kept = [payload for n, payload in enumerate(payloads) if len(b"".join(frames[: n + 1])) <= at]
    assert [message.payload for message in found.messages] == kept
    assert found.torn is (at > len(b"".join(frames[: len(kept)])))


@given(PAYLOADS, st.data())
def test_one_wrong_byte_costs_one_message(frame: Any, payloads: list[bytes], data: st.DataObject) -> None:
    frames = [frame("chunk", payload) for payload in payloads]
    hit = data.draw(st.integers(0, len(frames) - 1))
    place = data.draw(st.integers(0, len(frames[hit]) - 1))
    changed = bytearray(frames[hit])
    changed[place] ^= data.draw(st.integers(1, 255))
    found = eventstream.decode(b"".join([*frames[:hit], bytes(changed), *frames[hit + 1 :]]))
    assert [message.payload for message in found.messages] == payloads[:hit] + payloads[hit + 1 :]
    assert found.damaged or found.torn


def test_a_redacted_key_changes_a_length_and_costs_one_message(frame: Any) -> None:
    """The proxy redacts keys in what it records; usage comes last and must survive it."""
    frames = [frame("contentBlockDelta", b'{"delta": {"text": "%s"}}' % text) for text in (b"a", b"sk-proj-" + b"k" * 40, b"c")]
    redacted = b"".join(frames).replace(b"sk-proj-" + b"k" * 40, b"[redacted]")
    found = eventstream.decode(redacted)
    assert [json.loads(message.payload)["delta"]["text"] for message in found.messages] == ["a", "c"]
    assert found.damaged


@given(st.binary(max_size=300))
def test_garbage_gives_nothing(data: bytes) -> None:
    assert decoded(data) == []


@pytest.mark.parametrize("headers", [{}, {"a": ""}, {"x" * 255: "y" * 1000}])
def test_headers_of_any_size(frame: Any, headers: dict[str, str]) -> None:
    message = eventstream.decode(frame(None, b"{}", headers or {"": ""})).messages[0]
    assert message.headers == (headers or {"": ""})


def with_headers(head: bytes) -> bytes:
    prelude = struct.pack("!II", 16 + len(head), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head
    return message + struct.pack("!I", zlib.crc32(message))


def test_headers_of_every_type_are_passed_over() -> None:
    values = {0: b"", 1: b"", 2: b"1", 3: b"12", 4: b"1234", 5: b"12345678", 6: b"\0\3abc", 8: b"12345678", 9: b"1" * 16}
    head = b"".join(b"\1n" + bytes([kind]) + value for kind, value in values.items()) + b"\1t\7\0\2ok"
    assert eventstream.decode(with_headers(head)).messages[0].headers == {"t": "ok"}


@pytest.mark.parametrize("head", [b"\5ab", b"\1n\x0a", b"\1n\7", b"\1n\7\0\5ab", b"\1n\4ab", b"\xff"])
def test_headers_that_end_too_early_are_damage(head: bytes) -> None:
    found = eventstream.decode(with_headers(head))
    assert (found.messages, found.damaged) == ([], True)


@pytest.mark.parametrize("data", [b"\0" * (8 << 20), b"\0\0\0\x10" * (2 << 20)])
def test_eight_megabytes_without_a_message_take_no_time(data: bytes, frame: Any) -> None:
    """The search is bounded by steps, not by the body; behind its bound nothing is looked for."""
    end = frame("chunk", b"{}")
    found = eventstream.decode(end + data + end)
    assert (len(found.messages), found.damaged) == (1, True)


def test_more_messages_than_are_read(frame: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventstream, "MESSAGES_MAX", 3)
    found = eventstream.decode(frame("chunk", b"{}") * 5)
    assert (len(found.messages), found.full) == (3, True)


def bedrock(make: Any, data: bytes, **more: Any) -> dict[str, Any]:
    facts = {"provider": "aws", "operation": "converse", "path": "/model/amazon.nova-micro-v1%3A0/converse-stream"}
    envelope: dict[str, Any] = make(None, **{**facts, **more})
    envelope["response"] |= {"body": base64.b64encode(data).decode(), "body_encoding": "base64"}
    return envelope


METADATA = b'{"usage": {"inputTokens": 5, "outputTokens": 7, "totalTokens": 12}}'


def test_damage_is_named_and_hides_no_usage(make: Any, frame: Any, book: PriceBook) -> None:
    data = frame("contentBlockDelta", b'{"contentBlockIndex": 0, "delta": {"text": "x"}}')
    data = data[:-6] + b"zz" + data[-4:] + frame("messageStop", b'{"stopReason": "end_turn"}') + frame("metadata", METADATA)
    derived = derive(bedrock(make, data), book)
    assert derived["parse_error"] == "response: event stream: a message is damaged"
    assert (derived["usage"]["source"], derived["usage"]["total_tokens"]) == ("provider", 12)


def test_an_end_within_a_message_is_named_unless_the_call_was_cut(make: Any, frame: Any, book: PriceBook) -> None:
    data = frame("messageStart", b'{"role": "assistant"}') + frame("metadata", METADATA)[:-3]
    assert derive(bedrock(make, data), book)["parse_error"] == "response: event stream: it ends within a message"
    assert derive(bedrock(make, data, end="client_disconnected"), book)["parse_error"] is None


def test_an_exception_within_a_stream_is_the_provider_s_error(make: Any, frame: Any, book: PriceBook) -> None:
    headers = {":exception-type": "throttlingException", ":content-type": "application/json", ":message-type": "exception"}
    data = frame("messageStart", b'{"role": "assistant"}') + frame(None, b'{"message": "Too many requests"}', headers)
    for operation in ("converse", "invoke"):
        derived = derive(bedrock(make, data, operation=operation), book)
        assert derived["error_code"] == "throttlingException"
        assert derived["usage"]["total_tokens"] is None


@pytest.mark.parametrize("payload", [b"{}", b'{"bytes": 7}', b'{"bytes": "%%%"}', b"[]", b"{", b'{"bytes": "\xc3\xa9"}'])
def test_a_chunk_that_holds_no_document_is_an_error(payload: bytes, make: Any, frame: Any, book: PriceBook) -> None:
    assert derive(bedrock(make, frame("chunk", payload), operation="invoke"), book)["parse_error"]


def test_a_stream_whose_encoding_the_proxy_undid(make: Any, frame: Any, book: PriceBook) -> None:
    """Binary, so base64 in the envelope; its content-encoding is still stated."""
    envelope = bedrock(make, frame("messageStop", b'{"stopReason": "end_turn"}') + frame("metadata", METADATA))
    envelope["response"]["content_encoding"] = "gzip"
    derived = derive(envelope, book)
    assert (derived["parse_error"], derived["usage"]["total_tokens"]) == (None, 12)


STREAMS = sorted((Path(__file__).parents[2] / "contract" / "bedrock").glob("*-stream.json"))


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_the_payloads_alone_one_a_line_say_the_same(path: Path, envelope_of: Any, book: PriceBook) -> None:
    """What an event is stands in its payload too: a record may keep only these."""
    golden = json.loads(path.read_text(encoding="utf-8"))
    lines = [each.get("chunk") or each["payload"] for each in golden["messages"]]
    plain = derive(envelope_of({**{k: v for k, v in golden.items() if k != "messages"}, "lines": lines}), book)
    framed = derive(envelope_of(golden), book)
    for name in ("usage", "cost", "answer", "finish_reasons", "model", "service_tier"):
        assert plain[name] == framed[name], name
