"""Answers in the forms that the providers publish, with usage and cost worked out by hand in each file's `working`."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clearpane.contract.records import COLUMNS
from consumer.derive import PriceBook, derive, row
from consumer.derive.repricing import recorded, reprice

GOLDENS = sorted((Path(__file__).parents[2] / "contract" / "derive").glob("*.json"))
FAMILIES = {"openai_chat", "openai_responses", "embeddings", "anthropic", "gemini"}
ANSWER = {"text", "reasoning", "refusal", "tool_calls"}
BUCKETS = [name for name in COLUMNS if name.endswith("_tokens") and name != "total_tokens"]


def envelope_of(golden: dict[str, Any], make: Any) -> dict[str, Any]:
    answer = golden["answer"] if "answer" in golden else "\n".join(golden["stream"]) + "\n"
    found: dict[str, Any] = make(
        answer,
        **{name: golden[name] for name in ("request", "provider", "operation", "path", "status")},
    )
    return found


@pytest.fixture(params=GOLDENS, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.param.read_text(encoding="utf-8"))
    return found


def test_derived_is_what_was_worked_out_by_hand(golden: dict[str, Any], make: Any, book: PriceBook) -> None:
    derived = derive(envelope_of(golden, make), book)
    assert derived["parse_error"] is None
    for name, expected in golden["expected"].items():
        found = derived["answer"][name] if name in ANSWER else derived[name]
        if name in ("usage", "cost"):
            found = {each: found.get(each) for each in expected}
        assert found == expected, name


def test_a_skeleton_without_texts_derives_the_same_usage_and_cost(golden: dict[str, Any], make: Any, book: PriceBook) -> None:
    whole = derive(envelope_of(golden, make), book)
    bare = {**golden, "request": blanked(golden["request"])}
    if "answer" in golden:
        bare["answer"] = blanked(golden["answer"])
    else:
        bare["stream"] = [blanked_line(line) for line in golden["stream"]]
    skeleton = envelope_of(bare, make)
    skeleton["policy"]["omitted"] = ["request", "response"]
    derived = derive(skeleton, book)
    assert derived["answer"]["text"] is None
    for name in ("usage", "cost", "model", "finish_reasons", "error_code"):
        assert derived[name] == whole[name], name


def test_repricing_by_the_same_book_changes_nothing(golden: dict[str, Any], make: Any, book: PriceBook) -> None:
    envelope = envelope_of(golden, make)
    record = {**envelope, "derived": derive(envelope, book), "lake": {}}
    assert reprice(record, book) == recorded(record)


def test_the_row_adds_up_to_the_total(golden: dict[str, Any], make: Any, book: PriceBook) -> None:
    envelope = envelope_of(golden, make)
    found = row({**envelope, "derived": derive(envelope, book), "lake": {}})
    assert list(found) == list(COLUMNS)
    counts = [found[name] for name in BUCKETS]
    assert found["total_tokens"] == (None if None in counts else sum(counts))
    assert found["cost_total"] is None or isinstance(found["cost_total"], Decimal)
    assert (found["cost_total"] is None) == (found["cost_source"] == "unknown") == (found["cost_reason"] is not None)


def test_every_family_has_goldens_streamed_and_not() -> None:
    goldens = [json.loads(path.read_text(encoding="utf-8")) for path in GOLDENS]
    operations = {(golden["operation"], "stream" in golden) for golden in goldens}
    assert {(name, streamed) for name in ("chat", "responses", "messages", "generate_content") for streamed in (True, False)} <= operations
    assert ("embeddings", False) in operations
    assert ("completions", False) in operations


TEXTS = {
    "content",
    "text",
    "reasoning_content",
    "thinking",
    "refusal",
    "delta",
    "transcript",
    "partial_json",
    "summary",
    "parts",
    "prompt",
    "input",
}


def blanked(value: Any, name: str = "") -> Any:
    """What a record keeps of a body whose texts the caller wanted left out."""
    if isinstance(value, dict):
        return {each: blanked(inner, each) for each, inner in value.items()}
    if isinstance(value, list):
        return [blanked(inner, name) for inner in value]
    return None if isinstance(value, str) and name in TEXTS else value


def blanked_line(line: str) -> str:
    head, found, data = line.partition("data: ")
    if not found and line.startswith(("{", "[{")):
        opening = "[" if line.startswith("[") else ""
        return opening + json.dumps(blanked(json.loads(line.removeprefix("["))))
    if not found or data.startswith("[DONE]"):
        return line
    return f"{head}data: {json.dumps(blanked(json.loads(data)))}\n"
