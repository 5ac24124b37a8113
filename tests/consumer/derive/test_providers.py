"""Every provider, operation and mode: the examples that the providers publish, with the usage worked out by hand.

One file a row in `tests/contract/<provider>/<operation>[-stream].json`; `working` says how the expected usage came about.
"""

import base64
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from clearpane.contract.records import COLUMNS
from consumer.derive import PriceBook, derive, row
from consumer.derive.usage import ALL

CONTRACT = Path(__file__).parents[2] / "contract"
ROWS = {
    "openai": """chat chat-stream chat-audio completions completions-stream responses responses-stream responses-background
        responses-background-fetched embeddings images images-stream images-by-the-image transcription transcription-stream
        transcription-by-the-second speech speech-stream moderations batches realtime-stream
        realtime-transcription-stream responses-socket-stream""",
    "azure": "chat chat-stream responses embeddings",
    "anthropic": "messages messages-stream messages-compaction batches",
    "gemini": """generate_content generate_content-stream generate_content-array-stream generate_content-image embed_content
        realtime-stream batches batches-inline""",
    "vertex": "generate_content generate_content-stream generate_content-array-stream predict messages messages-stream",
    "bedrock": """converse converse-stream invoke-anthropic invoke-anthropic-stream invoke-llama invoke-llama-stream invoke-titan
        invoke-titan-stream invoke-nova invoke-nova-stream invoke-mistral invoke-mistral-stream invoke-cohere invoke-cohere-stream
        invoke-openai invoke-openai-stream invoke-titan-embed invoke-cohere-embed""",
    "mistral": "chat chat-stream embeddings batches",
    "cohere": "chat chat-stream chat-v1 chat-v1-stream chat-tokens-alone embed rerank",
    "groq": "chat chat-stream transcription",
    "deepseek": "chat chat-stream",
    "xai": "chat chat-stream",
    "openrouter": "chat chat-stream",
    "together": "chat chat-stream",
    "fireworks": "chat chat-stream",
    "perplexity": "chat chat-stream",
    "cerebras": "chat chat-stream",
    "huggingface": "chat chat-stream generate generate-stream",
    "vllm": "chat chat-stream",
    "voyage": "embeddings rerank",
    "jina": "embeddings rerank",
    "ollama": "chat chat-stream generate generate-stream embed",
}
PAGE = Path(__file__).parents[3] / "docs" / "money.md"
BEGIN, END = "<!-- usage table: begin -->\n", "<!-- usage table: end -->"
HEAD = """| provider | operation | stream | usage fields | usage | cost, USD | cost by |
|---|---|---|---|---|---|---|
"""
PATHS = [CONTRACT / provider / f"{name}.json" for provider, names in ROWS.items() for name in names.split()]
ANSWER = {"text", "reasoning", "refusal", "tool_calls"}


@pytest.fixture(params=PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.param.read_text(encoding="utf-8"))
    return found


def test_no_row_is_missing_and_none_is_left_over() -> None:
    stored = [path for path in CONTRACT.glob("*/*.json") if path.parent.name not in {"derive", "v1"}]
    assert sorted(stored) == sorted(PATHS)


def test_usage_and_answer_are_what_was_worked_out_by_hand(golden: dict[str, Any], envelope_of: Any, book: PriceBook) -> None:
    derived = derive(envelope_of(golden), book)
    assert derived["parse_error"] is None
    for name, expected in golden["expected"].items():
        found = derived["answer"][name] if name in ANSWER else derived[name]
        if name == "cost":
            found = {each: found[each] for each in expected}
        if name != "usage":
            assert found == expected, name
    usage, expected = derived["usage"], golden["expected"]["usage"]
    assert {leaf: usage[leaf] for leaf in ALL if usage[leaf]} == {leaf: expected[leaf] for leaf in ALL if leaf in expected}
    assert (usage["source"], usage["reason"]) == (expected["source"], expected.get("reason"))


def test_no_row_is_at_0_by_silence(golden: dict[str, Any], envelope_of: Any, book: PriceBook) -> None:
    derived = derive(envelope_of(golden), book)
    usage, cost = derived["usage"], derived["cost"]
    if usage["source"] == "unknown":
        assert usage["reason"]
        assert [usage[leaf] for leaf in (*ALL, "total_tokens")] == [None] * (len(ALL) + 1)
    else:
        assert usage["total_tokens"] == sum(usage[leaf] for leaf in ALL) > 0
        assert usage["stated"]
    assert (cost["total"] is None) == (cost["reason"] is not None)
    assert cost["total"] != "0"


def test_the_row_of_the_index_adds_up(golden: dict[str, Any], envelope_of: Any, book: PriceBook) -> None:
    envelope = envelope_of(golden)
    found = row({**envelope, "derived": derive(envelope, book), "lake": {}})
    counts = [found[name] for name in COLUMNS if name.endswith("_tokens") and name != "total_tokens"]
    assert found["total_tokens"] == (None if None in counts else sum(counts))


def test_a_stream_says_so_and_names_its_first_content(golden: dict[str, Any], envelope_of: Any, book: PriceBook) -> None:
    """The whole stream came at 40 ms: content, where there is any, came then."""
    streamed = not golden.keys() & {"answer", "body"}
    envelope = envelope_of(golden, timing={"chunk_marks": [[40.0, 1 << 20]], "last_byte_ms": 90.0})
    derived = derive(envelope, book)
    assert derived["streamed"] is streamed
    whole_lines = golden["operation"] in {"files", "batches"}
    said = any(derived["answer"][name] for name in ("text", "reasoning", "tool_calls")) or golden["operation"] == "speech"
    assert derived["first_token_ms"] == (40.0 if streamed and said and not whole_lines else None)


def test_a_stream_cut_anywhere_is_a_record(golden: dict[str, Any], wire_of: Any, make: Any, book: PriceBook) -> None:
    """Stated, estimated, or unknown with a reason; a stream's cut is no damage."""
    chosen = random.Random(golden["path"])
    data = wire_of(golden)
    for at in [0, 1, len(data) - 1, *(chosen.randrange(len(data)) for _ in range(5))]:
        envelope = make(None, end="client_disconnected", **{name: golden[name] for name in ("provider", "operation", "path", "request")})
        envelope["response"] |= {"body": base64.b64encode(data[:at]).decode(), "body_encoding": "base64"}
        derived = derive(envelope, book)
        assert (derived["usage"]["total_tokens"] is None) == (derived["usage"]["reason"] is not None)
        assert derived["cost"]["total"] != "0"
        if "messages" in golden or "events" in golden:
            assert derived["parse_error"] is None or at < 12


def test_the_published_table_is_what_is_derived(envelope_of: Any, book: PriceBook) -> None:
    made = HEAD + "".join(line(path, envelope_of, book) for path in PATHS)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(before + BEGIN + made + END + after, encoding="utf-8")
        table = made
    assert table == made


def line(path: Path, envelope_of: Any, book: PriceBook) -> str:
    derived = derive(envelope_of(json.loads(path.read_text(encoding="utf-8"))), book)
    usage, cost = derived["usage"], derived["cost"]
    counted = [f"{leaf.removesuffix('_tokens').replace('_', ' ')} {usage[leaf]}" for leaf in ALL if usage[leaf]]
    fields = ", ".join(counted or [f"{name.replace('_', ' ')} {used}" for name, used in (usage["units"] or {}).items()]) or "-"
    name = path.stem.removesuffix("-stream")
    stated = usage["source"] if usage["reason"] is None else f"unknown: {usage['reason']}"
    total = f"unknown: {cost['reason']}" if cost["total"] is None else cost["total"]
    return f"| {path.parent.name} | {name} | {'yes' if path.stem != name else ''} | {fields} | {stated} | {total} | {cost['source']} |\n"


def test_every_row_names_its_tokens_or_units_or_why_not_and_none_is_at_0(envelope_of: Any, book: PriceBook) -> None:
    for path in PATHS:
        cells = [cell.strip() for cell in line(path, envelope_of, book).strip("|\n").split("|")]
        assert len(cells) == 7
        assert cells[3] != "-" or cells[4].startswith("unknown: "), path
        assert cells[5].startswith("unknown: ") or float(cells[5]) > 0, path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/chat", "chatcmpl-1"),
        ("openai/chat-stream", "chatcmpl-1"),
        ("openai/responses-stream", "resp_1"),
        ("openai/responses-background-fetched", "resp_1"),
        ("anthropic/messages-stream", "msg_01"),
        ("gemini/generate_content-stream", "r1"),
        ("cohere/chat", "c1"),
        ("openai/batches", None),
        ("ollama/chat", None),
    ],
)
def test_the_provider_s_own_id_of_the_answer(name: str, expected: str | None, envelope_of: Any, book: PriceBook) -> None:
    golden = json.loads((CONTRACT / f"{name}.json").read_text(encoding="utf-8"))
    assert derive(envelope_of(golden), book)["response_id"] == expected
