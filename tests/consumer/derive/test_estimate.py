"""Estimates of a prompt and of an answer: tools as the models see them, images by the published sizes, whatever the request holds."""

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.derive import estimate, framing, images, rendering
from consumer.derive.answer import Answer
from consumer.derive.estimate import of_answer, of_prompt
from consumer.derive.families import anthropic, openai_chat, openai_responses
from consumer.derive.images import Image
from consumer.derive.tokens import Counter, load

WEATHER = {
    "name": "get_weather",
    "description": "Get the weather.\nNow.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"type": "string", "description": "Its unit.", "enum": ["c", "f"]},
            "days": {"type": ["integer", "null"], "default": 3},
            "where": {"type": "array", "items": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]}},
            "either": {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/x"}]},
        },
        "required": ["city"],
    },
}
RENDERED = """// Get the weather.
{comment}Now.
type get_weather = (_: {{
city: string,
// Its unit.
unit?: "c" | "f",
days?: number | null, // default: 3
where?: {{
lat: number,
}}[],
either?: boolean | any,
}}) => any;
"""


@pytest.mark.parametrize(("heading", "comment"), [(True, "// "), (False, "")])
def test_tools_are_typescript_in_a_namespace(heading: bool, comment: str) -> None:
    shown = rendering.tools([WEATHER, {"name": "stop"}], heading=heading)
    expected = f"namespace functions {{\n\n{RENDERED.format(comment=comment)}\ntype stop = () => any;\n\n}} // namespace functions"
    assert shown == ("# Tools\n\n## functions\n\n" if heading else "") + expected


def test_a_response_format_is_its_schema_under_a_heading() -> None:
    assert rendering.response_format("city", "A city.", {"a": 1}) == '# Response Formats\n\n## city\n\n// A city.\n{"a":1}'


def length(text: str) -> int:
    return len(load("o200k_base").encode_ordinary(text))


def chat(model: str, *messages: dict[str, Any], **more: Any) -> tuple[int, str]:
    body = {"model": model, "messages": list(messages), **more}
    found = of_prompt(openai_chat.prompt(body), model, body)
    return found.tokens, found.method


HI = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be kind."}
TOOLS = {"tools": [{"type": "function", "function": {"name": "get_sum", "parameters": {"properties": {"a": {"type": "number"}}}}}]}
SUM = "namespace functions {\n\ntype get_sum = (_: {\na?: number,\n}) => any;\n\n} // namespace functions"


@pytest.mark.parametrize(
    ("model", "messages", "more", "expected"),
    [
        ("gpt-4o", [HI], {}, 3 + 3 + 1 + 1),
        ("gpt-5-mini", [HI], {}, 2 + 3 + 1 + 1),
        ("gpt-4o", [HI], TOOLS, 8 + length(SUM) + 9 - 1),
        ("gpt-4.1", [SYSTEM, HI], TOOLS, 8 + 4 + length("Be kind.") + length(SUM) + 9 - 1 - 4),
        ("gpt-5-mini", [HI], TOOLS, 7 + length("# Tools\n\n## functions\n\n" + SUM) + 2 + 82),
    ],
)
def test_a_chat_is_its_texts_and_what_stands_around_them(model: str, messages: list[Any], more: dict[str, Any], expected: int) -> None:
    assert chat(model, *messages, **more)[0] == expected


def test_a_response_with_tools_has_no_preamble_of_the_chat_api() -> None:
    tool = {"type": "function", **TOOLS["tools"][0]["function"]}  # type: ignore[dict-item]
    body = {"model": "gpt-5-mini", "input": [HI], "tools": [tool]}
    assert of_prompt(openai_responses.prompt(body), "gpt-5-mini", body).tokens == chat("gpt-5-mini", HI, **TOOLS)[0] - 82


@pytest.mark.parametrize(("choice", "prompt"), [({"type": "auto"}, 346), ({"type": "any"}, 313), ({"type": "tool", "name": "stop"}, 313)])
def test_claudes_prompt_for_tools_is_counted_as_published(choice: dict[str, Any], prompt: int) -> None:
    body = {"messages": [HI], "tools": [{"name": "stop"}], "tool_choice": choice}
    shown = rendering.tools([{"name": "stop"}], heading=False)
    assert of_prompt(anthropic.prompt(body), "claude-sonnet-4-5", body).tokens == 8 + length(shown) + prompt


def called(*names: str, arguments: str = "{}") -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": n, "function": {"name": n, "arguments": arguments}} for n in names]}


def test_calls_of_earlier_turns_are_counted() -> None:
    plain = chat("gpt-4o", HI, {"role": "assistant", "content": "get_sum{}"})[0]
    assert chat("gpt-4o", HI, called("get_sum"))[0] == plain + 5 + length("get_sum")
    wrapped = '{"tool_uses":[{"recipient_name":"functions.get_sum","parameters":{}},{"recipient_name":"functions.stop","parameters":{}}]}'
    assert chat("gpt-4o", HI, called("get_sum", "stop"))[0] == 8 + 4 + length(wrapped) + 12


def test_arguments_that_are_no_json_are_counted_as_they_are() -> None:
    assert chat("gpt-4o", HI, called("a", "b", arguments='{"x'))[0] > 20


def test_a_schema_for_the_answer_is_counted_in_both_apis() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    shown = length(rendering.response_format("n", "", schema)) + 4
    assert chat("gpt-4o", HI, response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})[0] == 8 + shown
    body = {"input": "Hi", "text": {"format": {"type": "json_schema", "name": "n", "schema": schema}}}
    assert of_prompt(openai_responses.prompt(body), "gpt-4o", body).tokens == 8 + shown


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 640, 480)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(10) + b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", 480, 640) + bytes(12)
GIF = b"GIF89a" + struct.pack("<HH", 640, 480)
WEBP = b"RIFF\x00\x00\x00\x00WEBP"
LOSSY = WEBP + b"VP8 " + bytes(10) + struct.pack("<HH", 640, 480)
LOSSLESS = WEBP + b"VP8L" + bytes(5) + struct.pack("<I", 639 | 479 << 14)
EXTENDED = WEBP + b"VP8X" + bytes(8) + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")


def picture(data: bytes, detail: str | None = None, kind: str = "png") -> dict[str, Any]:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}}


@pytest.mark.parametrize("data", [PNG, JPEG, GIF, LOSSY, LOSSLESS, EXTENDED])
def test_the_size_of_an_image_is_read_from_its_first_bytes(data: bytes) -> None:
    assert images.find({"messages": [{"content": [picture(data)]}]}) == [Image((640, 480), "auto")]


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFFxxxxWEBPVP8 ", PNG[:16] + bytes(8), b"%PDF"])
def test_an_image_that_is_none_has_no_size(data: bytes) -> None:
    assert images.find({"messages": [{"content": [picture(data)]}]}) == [Image(None, "auto")]


@pytest.mark.parametrize(
    ("model", "size", "detail", "expected"),
    [
        # OpenAI's guide.
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4o-mini", (512, 512), "high", 2833 + 5667),
        ("o1", (512, 512), "auto", 225),
        ("gpt-5", (512, 512), "auto", 210),
        ("gpt-4.1-mini", (1024, 1024), "auto", 1659),  # 1024 patches * 1.62
        ("gpt-4.1-mini", (1800, 2400), "low", 2353),  # 1452 patches
        # What users measured: https://community.openai.com/t/1344040 and /1377015
        ("gpt-5-mini", (256, 256), "auto", 77),
        ("gpt-5-mini", (1280, 720), "auto", 1104),
        ("gpt-5-mini", (2048, 768), "auto", 1844),
        ("gpt-5-nano", (1600, 1600), "auto", 2282),
        ("gpt-5.4", (1600, 1600), "auto", 3000),
        ("claude-sonnet-4-5", (512, 512), "auto", None),
        ("gpt-5-mini", None, "low", None),
        ("gpt-4o", None, "low", 85),
    ],
)
def test_images_by_size(model: str, size: tuple[int, int] | None, detail: str, expected: int | None) -> None:
    assert images.tokens(Image(size, detail), model) == expected


@given(st.integers(1, 65_535), st.integers(1, 65_535))
def test_any_size_has_tokens_within_the_bounds(width: int, height: int) -> None:
    tiles, patches = (images.tokens(Image((width, height), "high"), model) for model in ("gpt-4o", "gpt-5-mini"))
    assert tiles is not None
    assert patches is not None
    assert 85 + 170 <= tiles <= 85 + 170 * 8
    assert 2 <= patches <= 1844


def test_an_image_of_known_size_is_counted_and_said_to_be() -> None:
    seen = {"role": "user", "content": [{"type": "text", "text": "Hi"}, picture(PNG)]}
    assert chat("gpt-4o", seen) == (8 + 85 + 170 * 2, "tiktoken o200k_base; images by size, mostly within 1 %")
    unseen = {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}
    assert chat("gpt-4o", unseen) == (8, "tiktoken o200k_base; images, files and history not counted")
    assert chat("gpt-4o", HI, **TOOLS)[1] == "tiktoken o200k_base; tools as rendered, mostly within 1 %"
    assert chat("claude-x", seen)[1] == "tiktoken o200k_base; not the model's own encoding; images, files and history not counted"


@pytest.mark.parametrize(
    "asked",
    [
        {"input": [{"type": "reasoning", "encrypted_content": "x"}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": "a", "previous_response_id": "resp_1"},
        {"input": "a", "tools": [{"type": "web_search"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
    ],
)
def test_what_the_request_does_not_hold_is_said_to_be_missing(asked: dict[str, Any]) -> None:
    assert of_prompt(openai_responses.prompt(asked), "gpt-5", asked).method.endswith("images, files and history not counted")


def answer(model: str, *names: str, content: str | None = None) -> int:
    found = Answer()
    message = {
        "content": content,
        "tool_calls": [{"index": n, "function": {"name": name, "arguments": "{}"}} for n, name in enumerate(names)],
    }
    openai_chat.fold(found, {"choices": [{"index": 0, "message": message}]}, "")
    return of_answer(found, model).tokens


def test_calls_in_an_answer_cost_more_than_their_texts() -> None:
    assert answer("gpt-4o", content="Hello") == 1
    assert answer("gpt-4o", "get_sum") == length("get_sum") + 1 + 7
    assert answer("gpt-5", "get_sum") == length("get_sum") + 1 + 16
    wrapped = '{"tool_uses":[{"recipient_name":"functions.get_sum","parameters":{}},{"recipient_name":"functions.stop","parameters":{}}]}'
    assert answer("gpt-4o", "get_sum", "stop") == length(wrapped) + 10


KEYS = ["type", "properties", "anyOf", "items", "enum", "required", "description", "default", "name", "parameters", "function", "image_url"]
KEYS += ["url", "detail", "content", "output", "arguments", "tool_calls", "schema", "json_schema", "format", "role", "text"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=30,
)
ASKED = st.dictionaries(
    st.sampled_from(["messages", "input", "tools", "response_format", "text", "instructions", "prompt"]), JSON, max_size=5
)


@given(ASKED, st.sampled_from(["gpt-4o", "gpt-5", "gpt-4", "gpt-oss-120b", "other", None]))
def test_no_request_makes_an_estimate_fail(asked: dict[str, Any], model: str | None) -> None:
    for family in (openai_chat, openai_responses):
        found = estimate.of_prompt(family.prompt(asked), model, asked)
        assert found.tokens >= 0
        assert found.method
    assert framing.history(asked, framing.of("gpt-4o", "o200k_base"), Counter("o200k_base")) >= 0


def test_a_schema_nested_without_end_is_cut() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        schema = {"type": "object", "properties": {"a": schema}}
    assert "a?: any" in rendering.tools([{"name": "deep", "parameters": schema}], heading=True)
