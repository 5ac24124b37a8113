"""What an omitted body keeps is enough for usage and cost: every published example, once as it is and once without its texts."""

import json
from pathlib import Path
from typing import Any

import pytest

from consumer.derive import PriceBook, derive
from tests.consumer.derive.shipped import shipped

CONTRACT = Path(__file__).parents[2] / "contract"
PATHS = sorted(path for path in CONTRACT.glob("*/*.json") if path.parent.name != "v1")


def made(golden: dict[str, Any], make: Any) -> Any:
    answer = golden["answer"] if "answer" in golden else "\n".join(golden["stream"]) + "\n"
    return make(answer, **{name: golden[name] for name in ("request", "provider", "operation", "path", "status")})


def cost_of(envelope: dict[str, Any], book: PriceBook) -> dict[str, Any]:
    derived = derive(envelope, book)
    names = ("usage", "cost", "model", "model_requested", "finish_reasons", "error_code", "service_tier", "streamed", "response_id")
    del derived["usage"]["stated"]  # a block that is no measure as a whole
    return {name: derived[name] for name in names}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.parametrize("omitted", [("request",), ("response",), ("request", "response")], ids="+".join)
def test_usage_and_cost_are_the_same_without_the_texts(
    path: Path, omitted: tuple[str, ...], envelope_of: Any, make: Any, book: PriceBook
) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    envelope = envelope_of(golden) if path.parent.name != "derive" else made(golden, make)
    bare = shipped(envelope, *omitted)
    assert cost_of(bare, book) == cost_of(shipped(envelope), book)
    said = derive(bare, book)["answer"]
    if "response" in omitted:
        assert (said["text"], said["reasoning"], said["refusal"]) == (None, None, None)
        assert not any(call["name"] or call["arguments"] for call in said["tool_calls"])
    if "request" in omitted:
        assert not [text for text in texts_of(golden["request"]) if text in (bare["request"]["body"] or "")]


def texts_of(value: Any) -> list[str]:
    """What the caller wrote: it has a space in it."""
    if isinstance(value, dict | list):
        return [text for each in (value.values() if isinstance(value, dict) else value) for text in texts_of(each)]
    return [value] if isinstance(value, str) and " " in value else []
