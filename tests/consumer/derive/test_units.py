"""Calls that are billed by the second, the character, the image or the search: priced where there is a price, else told what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from consumer.derive import PriceBook, derive
from consumer.derive.overlay import parse
from consumer.derive.repricing import recorded, reprice
from proxy.routes import operation_of

CONTRACT = Path(__file__).parents[2] / "contract"
OVERLAY = """
[[price]]
provider = "openai"
model = "dall-e-3"
rates = { images = 40 }

[[price]]
provider = "cohere"
model = "rerank-*"
rates = { searches = 2 }
"""
SPEECH = {"path": "/v1/audio/speech", "operation": "speech"}
WHISPER = {"path": "/v1/audio/transcriptions", "operation": "transcription"}


def golden(name: str) -> Any:
    return json.loads((CONTRACT / f"{name}.json").read_text(encoding="utf-8"))


def priced(envelope: dict[str, Any], book: PriceBook) -> tuple[Any, ...]:
    derived = derive(envelope, book)
    usage, cost = derived["usage"], derived["cost"]
    assert usage["source"] == "unknown"
    assert usage["total_tokens"] is None
    assert (cost["input"], cost["output"]) == (None, None)
    return usage["units"], cost["total"], cost["source"], cost["reason"]


def test_whisper_by_the_seconds_that_are_billed(envelope_of: Any, book: PriceBook) -> None:
    """9 s at 0.36 USD an hour; the recording is 8.47 s long."""
    found = priced(envelope_of(golden("openai/transcription-by-the-second")), book)
    assert found == ({"audio_seconds": "9"}, "0.0009", "book", None)


@pytest.mark.parametrize(("seconds", "billed", "total"), [(3.5, "10", "0.000111111111111111"), (36, "36", "0.0004")])
def test_groq_bills_ten_seconds_at_least(seconds: float, billed: str, total: str, make: Any, book: PriceBook) -> None:
    """0.04 USD an hour."""
    answer = {"task": "transcribe", "duration": seconds, "text": "Hi"}
    envelope = make(answer, provider="groq", request={"model": "whisper-large-v3-turbo"}, **WHISPER)
    assert priced(envelope, book)[:2] == ({"audio_seconds": billed}, total)


def test_a_transcription_that_does_not_state_its_length(envelope_of: Any, book: PriceBook) -> None:
    units, total, source, reason = priced(envelope_of(golden("groq/transcription")), book)
    assert (units, total, source) == (None, None, "unknown")
    assert reason.endswith("how many audio_seconds is not stated")


def test_speech_by_the_character(make: Any, book: PriceBook) -> None:
    """19 characters at 15 USD per million."""
    envelope = make("ID3 audio", request={"model": "tts-1", "input": "The quick brown fox"}, **SPEECH)
    assert priced(envelope, book) == ({"characters": "19"}, "0.000285", "book", None)


def test_speech_without_a_price_by_the_character(envelope_of: Any, book: PriceBook) -> None:
    units, total, _, reason = priced(envelope_of(golden("openai/speech")), book)
    assert (units, total, reason) == ({"characters": "19"}, None, "no price for characters of model gpt-4o-mini-tts at openai")


@pytest.mark.parametrize(
    ("name", "units", "total"), [("openai/images-by-the-image", "images", "0.04"), ("cohere/rerank", "searches", "0.002")]
)
def test_images_and_searches_at_the_overlay_s_price(name: str, units: str, total: str, envelope_of: Any, book: PriceBook) -> None:
    envelope = envelope_of(golden(name))
    assert priced(envelope, book)[1:3] == (None, "unknown")
    own = PriceBook(parse(OVERLAY.encode(), "prices.toml", book.knows))
    assert priced(envelope, own)[:3] == ({units: "1"}, total, "overlay")
    record = {**envelope, "derived": derive(envelope, book), "lake": {}}
    assert reprice(record, book) == recorded(record)
    assert str(reprice(record, own)["cost_total"]) == total


@pytest.mark.parametrize("value", [None, True, -1, 0, "x", [], {}, 10**30, float("inf"), "1e5", "٣"])
def test_a_number_that_is_none_is_not_priced(value: Any, make: Any, book: PriceBook) -> None:
    answer = {"text": "Hi", "usage": {"type": "duration", "seconds": value}}
    envelope = make(json.dumps(answer), request={"model": "whisper-1", "input": value}, **WHISPER)
    assert priced(envelope, book)[:3] == (None, None, "unknown")


def test_an_error_is_not_billed_by_the_unit(make: Any, book: PriceBook) -> None:
    answer = {"error": {"message": "no", "code": "x"}, "usage": {"seconds": 3}}
    for facts in (WHISPER, SPEECH):
        derived = derive(make(answer, status=400, request={"model": "whisper-1", "input": "Hi"}, **facts), book)
        assert (derived["usage"]["units"], derived["cost"]["total"]) == (None, None)


def test_a_bedrock_error_is_named_by_its_header(make: Any, book: PriceBook) -> None:
    headers = {"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    for operation, path in (("converse", "/model/m/converse"), ("invoke", "/model/m/invoke"), ("other", "/guardrail/x")):
        envelope = make({"message": "Too many requests"}, status=429, provider="bedrock", operation=operation, path=path, headers=headers)
        assert derive(envelope, book)["error_code"] == "ThrottlingException"


@pytest.mark.parametrize("path", sorted(path for path in CONTRACT.glob("*/*.json") if path.parent.name not in {"v1", "derive"}), ids=str)
def test_the_proxy_names_the_operation_of_every_example(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["operation"] == operation_of(found["path"])
