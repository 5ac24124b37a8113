"""Whatever a body holds, there is a record that can be written: null, `parse_error`, never an exception, never a crash."""

import base64
import copy
import gzip
import json
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import brotli
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearpane.contract import bodies
from clearpane.contract.records import COLUMNS
from consumer.derive import PriceBook, derive, row

CONTRACT = Path(__file__).parents[2] / "contract"
GOLDENS = sorted((CONTRACT / "derive").glob("*.json"))
PROVIDERS = [path for path in sorted(CONTRACT.glob("*/*.json")) if path.parent.name not in {"derive", "v1"}]
BOOK = PriceBook()
OPERATIONS = ["chat", "completions", "responses", "embeddings", "messages", "generate_content", "embed_content", "other", None]
OPERATIONS += ["converse", "invoke", "cohere_chat", "ollama", "images", "transcription", "speech", "moderations", "rerank", "files"]
PLACES = ["/v1/chat/completions", "/v1/realtime", "/v1/files/f/content", "/v2/embed", "/generate", "/m/models/x:predict", "/model/x/invoke"]


def names_in(value: Any) -> set[str]:
    """Every name that a provider uses anywhere."""
    if isinstance(value, dict):
        return set(value).union(*(names_in(inner) for inner in value.values()))
    return set().union(*(names_in(inner) for inner in value)) if isinstance(value, list) else set()


NASTY: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 2**63, 2**70, 1e308, 0.5, "", "x", "0", "\u0000", "\ud800", [], {}, [[]], {"": {}}, [None], {"text": 1}]
)
JSON = st.recursive(
    NASTY | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(sorted({name for path in GOLDENS + PROVIDERS for name in names_in(json.loads(path.read_text(encoding="utf-8")))}))
SHAPED = st.recursive(NASTY, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20)


def checked(envelope: dict[str, Any]) -> dict[str, Any]:
    """Derives, and writes what was derived as the lake does."""
    derived = derive(envelope, BOOK)
    record = {"request_id": "x", "derived": derived, "lake": {}, **{name: {} for name in ("target", "response")}}
    orjson.dumps(record)
    found = row(record)
    assert list(found) == list(COLUMNS)
    usage, cost = derived["usage"], derived["cost"]
    assert (usage["total_tokens"] is None) == (usage["source"] == "unknown")
    assert (cost["total"] is None) == (cost["source"] == "unknown") == (cost["reason"] is not None)
    assert found["cost_total"] is None or (abs(found["cost_total"].as_tuple().exponent) <= 18 and found["cost_total"] < Decimal(10) ** 20)
    return derived


def dumped(value: Any) -> str:
    return json.dumps(value)


@given(
    SHAPED | JSON,
    SHAPED | JSON,
    st.sampled_from(OPERATIONS),
    st.sampled_from(["openai", "openrouter", "perplexity", "anthropic", "aws", None]),
    st.sampled_from(PLACES),
)
@settings(max_examples=400)
def test_any_json(make: Any, answer: Any, request: Any, operation: str, provider: str, path: str) -> None:
    checked(make(dumped(answer), request=dumped(request), operation=operation, provider=provider, path=path))


@given(st.lists(SHAPED, max_size=5), st.sampled_from(OPERATIONS), st.sampled_from(["complete", "client_disconnected"]))
@settings(max_examples=200)
def test_any_events(make: Any, documents: list[Any], operation: str, end: str) -> None:
    checked(make("".join(f"data: {dumped(each)}\n\n" for each in documents), operation=operation, end=end))


@given(st.lists(SHAPED, max_size=5), st.sampled_from(OPERATIONS), st.sampled_from(PLACES), st.booleans())
@settings(max_examples=200)
def test_any_lines(make: Any, documents: list[Any], operation: str, path: str, framed: bool) -> None:
    """One document a line, or one message of a WebSocket a line."""
    lines = [dumped({"at_ms": 1, "type": "text", "data": dumped(each)} if framed else each) for each in [{}, *documents]]
    checked(make("\n".join(lines), request="\n".join(lines), operation=operation, path=path))


@given(st.lists(SHAPED, min_size=1, max_size=5), st.sampled_from(["converse", "invoke", "chat"]), st.booleans())
@settings(max_examples=200)
def test_any_event_stream(make: Any, frame: Any, documents: list[Any], operation: str, wrapped: bool) -> None:
    payloads = [dumped(each).encode() for each in documents]
    if wrapped:
        payloads = [dumped({"bytes": base64.b64encode(each).decode()}).encode() for each in payloads]
    data = b"".join(frame("chunk" if wrapped else "contentBlockDelta", each) for each in payloads)
    envelope = make(None, operation=operation, path="/model/x/invoke-with-response-stream")
    envelope["response"] |= {"body": base64.b64encode(data).decode(), "body_encoding": "base64"}
    checked(envelope)


@given(st.binary(max_size=120), st.sampled_from([b"--x\r\n", b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n', b"--x"]))
def test_any_form(make: Any, data: bytes, head: bytes) -> None:
    envelope = make({"text": "x"}, operation="transcription")
    envelope["request"] |= {"body": base64.b64encode(head + data + b"\r\n--x--\r\n").decode(), "body_encoding": "base64"}
    checked(envelope)


@given(st.text(max_size=200), st.sampled_from(["", "{", "[", "data: ", "data: {", "event: x\ndata: [{"]), st.sampled_from(OPERATIONS))
def test_any_text(make: Any, text: str, head: str, operation: str) -> None:
    checked(make(head + text, request=head + text, operation=operation))


@given(
    st.binary(max_size=100),
    st.sampled_from(["gzip", "br", "zstd", "deflate", "nonsense", None]),
    st.sampled_from(["base64", "utf-8", None, 7]),
)
def test_any_bytes_in_any_encoding(make: Any, data: bytes, coding: str | None, encoding: Any) -> None:
    envelope = make(None)
    envelope["response"] |= {"body": base64.b64encode(data).decode(), "body_encoding": encoding, "content_encoding": coding}
    checked(envelope)


@pytest.mark.parametrize("golden", [json.loads(path.read_text(encoding="utf-8")) for path in GOLDENS], ids=[path.stem for path in GOLDENS])
@given(data=st.data())
@settings(max_examples=25)
def test_any_value_at_any_place_of_a_real_answer(golden: dict[str, Any], data: st.DataObject, make: Any) -> None:
    """The true form, with one or two values replaced by something else."""
    documents = [golden["answer"]] if "answer" in golden else [json.loads(line) for line in _data_lines(golden["stream"])]
    both = {"request": copy.deepcopy(golden["request"]), "documents": copy.deepcopy(documents)}
    for _ in range(data.draw(st.integers(1, 2))):
        _replace(both, data)
    events = "".join(f"data: {dumped(each)}\n\n" for each in both["documents"])
    answer = dumped(both["documents"][0]) if "answer" in golden else events
    facts = {name: golden[name] for name in ("provider", "operation", "path", "status")}
    checked(make(answer, request=dumped(both["request"]), **facts))


@pytest.mark.parametrize("path", PROVIDERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
@given(data=st.data())
@settings(max_examples=4)
def test_any_value_at_any_place_of_a_published_example(path: Path, data: st.DataObject, envelope_of: Any) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    form = next((name for name in ("answer", "events", "lines", "array", "messages") if name in golden), "request")
    both = {"request": golden["request"], "documents": golden[form]}
    for _ in range(data.draw(st.integers(1, 2))):
        _replace(both, data)
    changed = (
        {**golden, "request": both["request"]} if form == "request" else {**golden, "request": both["request"], form: both["documents"]}
    )
    try:
        envelope = envelope_of(changed)
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):  # what makes the example's bytes does not take every value
        return
    checked(envelope)


def _data_lines(stream: list[str]) -> list[str]:
    pieces = [line.partition("data: ")[2] or line for line in stream]
    return [piece.strip().lstrip("[").rstrip("]") if piece.startswith("[{") else piece for piece in pieces if "{" in piece]


def _replace(root: Any, data: st.DataObject) -> None:
    value = root[data.draw(st.sampled_from(["request", "documents"]))]
    while isinstance(value, dict | list) and value:
        key = data.draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        if not isinstance(value[key], dict | list) or not value[key] or data.draw(st.integers(0, 3)) == 0:
            value[key] = copy.deepcopy(data.draw(NASTY | JSON))
            return
        value = value[key]


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"choices": ' + "[" * 900 + "]" * 900 + "}",
        '{"choices": [], "usage": {"prompt_tokens": 1e400}}',
        '{"choices": [], "usage": {"prompt_tokens": NaN}}',
        "data: " + "[" * 100_000 + "\n\n",
        '{"choices": [{"message": {"content": "\\ud83d"}}]}',
        '{"a": "\\ud83d", "b": ' + "[" * 100_000,
        "\ufeff{}",
        "9" * 100_000,
        '"' + "a" * 100_000,
        '{"a": 1, "a": 2, "usage": {"prompt_tokens": 1, "prompt_tokens": "x"}}',
        '{"a": 1}\n' + "[" * 100_000,
        '{"at_ms": 1, "type": "text", "data": "' + "[" * 100_000 + '"}\n',
        '{"at_ms": 1, "type": "binary", "data": "%%"}\n{"at_ms": 1, "type": "text", "data": 7}',
        '{"custom_id": "x", "response": {"body": {"choices": [], "usage": {"prompt_tokens": 1e400}}}}\n{}',
        "--x\r\n" * 50_000,
    ],
    ids=lambda body: body[:20],
)
def test_depth_and_numbers_beyond_all_bounds(body: str, make: Any) -> None:
    for path in PLACES:
        checked(make(body, request=body, path=path))


@pytest.mark.parametrize("depth", [900, 100_000])
def test_depth_within_an_event_stream(depth: int, make: Any, frame: Any) -> None:
    deep = b'{"delta": {"toolUse": {"input": ' + b"[" * depth + b"]" * depth + b"}}}"
    data = frame("contentBlockDelta", deep) + frame("metadata", b'{"usage": {"inputTokens": 1, "outputTokens": 2}}')
    envelope = make(None, operation="converse", path="/model/x/converse-stream")
    envelope["response"] |= {"body": base64.b64encode(data).decode(), "body_encoding": "base64"}
    assert checked(envelope)["usage"]["total_tokens"] == 3


def test_the_last_of_two_equal_keys_counts(make: Any) -> None:
    body = '{"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens": 5}}'
    assert checked(make(body))["usage"]["input_tokens"] == 5


def test_one_line_of_ten_megabytes(make: Any) -> None:
    choice = {"delta": {"content": "x" * (10 << 20)}, "finish_reason": "stop"}
    body = f"data: {dumped({'choices': [choice], 'usage': {'prompt_tokens': 1, 'completion_tokens': 2}})}\n\n"
    assert checked(make(body))["usage"]["total_tokens"] == 3


def packed(coding: str, data: bytes) -> bytes:
    return {"gzip": gzip.compress, "deflate": zlib.compress, "br": lambda d: brotli.compress(d, quality=1), "zstd": bodies.compress}[
        coding
    ](data)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("head", [b'{"a": "', b"data: ", b'{"a": 1}\n', b"["])
def test_a_bomb_in_any_coding_is_bounded_and_named(coding: str, head: bytes, make: Any) -> None:
    envelope = make(None)
    wire = base64.b64encode(packed(coding, head + b" " * (40 << 20))).decode()
    envelope["response"] |= {"body": wire, "body_encoding": "base64", "content_encoding": coding}
    derived = checked(envelope)
    assert derived["parse_error"]
    assert derived["usage"]["total_tokens"] is None


@pytest.mark.parametrize("coding", ["nonsense", "gzip, gzip, gzip", "compress"])
def test_an_unknown_coding_is_named(coding: str, make: Any) -> None:
    envelope = make(None)
    envelope["response"] |= {"body": base64.b64encode(b"\x1f\x9d\x90").decode(), "body_encoding": "base64", "content_encoding": coding}
    assert "encoding" in str(checked(envelope)["parse_error"])


def test_lone_surrogates_become_question_marks(make: Any) -> None:
    choice = '{"index": 0, "message": {"content": "a\\ud83db"}, "finish_reason": "stop"}'
    body = '{"choices": [' + choice + '], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}'
    derived = checked(make(body))
    assert (derived["answer"]["text"], derived["usage"]["total_tokens"], derived["parse_error"]) == ("a?b", 3, None)


def test_usage_nested_too_deep_to_be_written_again_is_left_out(make: Any) -> None:
    body = '{"choices": [], "usage": {"prompt_tokens": 1, "total_tokens": 1, "x": ' + "[" * 300 + "]" * 300 + "}}"
    derived = checked(make(body))
    assert derived["usage"]["stated"] == {"omitted": "nested too deep"}
    assert derived["usage"]["input_tokens"] == 1


@pytest.mark.parametrize("wrong", [-1, 1.5, "7", True, [], {}, 10**13, 1e300])
@pytest.mark.parametrize(
    ("provider", "operation", "usage", "name"),
    [
        (
            "openai",
            "chat",
            {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
            "prompt_tokens",
        ),
        (
            "anthropic",
            "messages",
            {"type": "message", "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 2}},
            "output_tokens",
        ),
    ],
)
def test_a_count_that_is_none_makes_usage_unknown(
    wrong: Any, provider: str, operation: str, usage: dict[str, Any], name: str, make: Any
) -> None:
    answer = {**usage, "usage": {**usage["usage"], name: wrong}}
    derived = checked(make(answer, provider=provider, operation=operation))
    assert derived["parse_error"] == f"usage: {name} is not a number of tokens"
    assert (derived["usage"]["source"], derived["usage"]["input_tokens"]) == ("unknown", None)
    assert derived["cost"]["reason"] == "the stated usage cannot be read"


@pytest.mark.parametrize("cost", [-0.1, 1e300, "0.1", True, None, {"total_cost": -1}, []])
def test_a_stated_cost_that_is_none_is_not_taken(cost: Any, make: Any) -> None:
    answer = {
        "choices": [{"finish_reason": "stop"}],
        "model": "nonesuch",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": cost},
    }
    for provider in ("openrouter", "perplexity"):
        assert checked(make(answer, provider=provider))["cost"]["source"] == "unknown"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        ("data: x\n\n", "\n"),
        ("data: x\n\n", "data:\n"),
        ("", "data: 1\n\n"),
        ("", "data: [\n\n"),
        ("", "data: [DONE]\n\n"),
        ("", 'data: {"usage": {"a": 1}}\n\n'),
        ("[", "{},"),
        ("[", '"'),
        ("", "["),
        ('["', "\\"),
        ("", '{"a": 1}\n'),
        ('{"a": 1}\n', "\n"),
        ('{"a": 1}\n', "[\n"),
        ("", '{"at_ms": 1, "type": "text", "data": "{}"}\n'),
        ("--x\r\n", "\r\n--x"),
    ],
)
def test_eight_megabytes_of_one_thing(head: str, piece: str, make: Any) -> None:
    """The largest body that is kept; a record, in seconds and in bounded memory."""
    checked(make(head + piece * ((8 << 20) // len(piece)), end="client_disconnected"))


def test_tool_calls_without_end(make: Any) -> None:
    """Linear, whatever indexes and ids a server makes up."""
    calls = [{"index": at, "function": {"arguments": "x"}} for at in range(10_000)]
    body = "".join(f"data: {dumped({'choices': [{'delta': {'tool_calls': [call]}}]})}\n\n" for call in calls + calls)
    assert len(checked(make(body))["answer"]["tool_calls"]) == 10_000


@given(st.dictionaries(st.sampled_from(["target", "request", "response", "timing", "policy", "event"]), JSON, max_size=6))
def test_any_envelope(envelope: dict[str, Any]) -> None:
    checked(envelope)
