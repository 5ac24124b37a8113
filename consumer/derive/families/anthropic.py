"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages and its streaming events.

Cache reads and writes stand beside `input_tokens`; thinking is inside `output_tokens`.
"""

from typing import Any

from consumer.derive.answer import Answer, Choice
from consumer.derive.request import Prompt, Request, Turn, kind, params, path_part
from consumer.derive.untrusted import Mapping, count, dumps, mapping, mappings, short, text
from consumer.derive.usage import Leaves, rest, total

NAME = "anthropic"


def ask(body: Mapping, path: str) -> Request:
    thinking = mapping(body.get("thinking"))
    return Request(
        model=short(body.get("model")) or path_part(path, "/models/"),  # Vertex names it in the path
        params=params(
            body,
            tool_choice=kind(body.get("tool_choice")),
            thinking=kind(thinking),
            thinking_budget_tokens=thinking.get("budget_tokens"),
            reasoning_effort=mapping(body.get("output_config")).get("effort"),
        ),
        stream=body.get("stream") is True,
        service_tier=short(body.get("service_tier")),
        speed=short(body.get("speed")),
    )


def fold(answer: Answer, document: Mapping, event: str) -> None:
    form = document.get("type")
    choice = answer.choice(0)
    if form == "message":
        _fold_message(answer, document)
        for position, block in enumerate(mappings(document.get("content"))):
            _fold_block(answer, choice, position, block)
    elif form == "message_start":
        _fold_message(answer, mapping(document.get("message")))
    elif form == "content_block_start":
        _fold_block(answer, choice, document.get("index"), mapping(document.get("content_block")))
    elif form == "content_block_delta":
        _fold_delta(answer, choice, document.get("index"), mapping(document.get("delta")))
    elif form == "message_delta":
        answer.state(document.get("usage"))
        answer.finish(choice, mapping(document.get("delta")).get("stop_reason"))
    elif form == "error":
        answer.fail(mapping(document.get("error")).get("type"))


def _fold_message(answer: Answer, message: Mapping) -> None:
    answer.understood = True
    answer.model = short(message.get("model")) or answer.model
    answer.state(message.get("usage"))
    answer.finish(answer.choice(0), message.get("stop_reason"))


def _fold_block(answer: Answer, choice: Choice, at: Any, block: Mapping) -> None:
    form = block.get("type")
    if form == "text":
        answer.add(choice.text, block.get("text"))
    elif form == "thinking":
        answer.add(choice.reasoning, block.get("thinking"))
    elif form == "tool_use" or form == "server_tool_use":
        tool = choice.tool(short(at))
        answer.name_tool(tool, block.get("name"), block.get("id"))
        if block.get("input"):  # a stream starts with {} and sends the text in deltas
            answer.add(tool.arguments, dumps(block["input"]))


def _fold_delta(answer: Answer, choice: Choice, at: Any, delta: Mapping) -> None:
    form = delta.get("type")
    if form == "text_delta":
        answer.add(choice.text, delta.get("text"))
    elif form == "thinking_delta":
        answer.add(choice.reasoning, delta.get("thinking"))
    elif form == "input_json_delta":
        answer.add(choice.tool(short(at)).arguments, delta.get("partial_json"))


def leaves(stated: Mapping) -> Leaves | None:
    """A conversation that the API compacted was read once more before: that stands only in `iterations`."""
    compacted = [each for each in mappings(stated.get("iterations")) if each.get("type") == "compaction"]
    found = _leaves(stated)
    return found and total([found, *(more for each in compacted if (more := _leaves(each)))])


def _leaves(stated: Mapping) -> Leaves | None:
    given, made = count(stated, "input_tokens"), count(stated, "output_tokens")
    if given is None and made is None:
        return None
    written = count(stated, "cache_creation_input_tokens") or 0
    detail = mapping(stated.get("cache_creation"))
    hour = count(detail, "ephemeral_1h_input_tokens") or 0
    written = written or hour + (count(detail, "ephemeral_5m_input_tokens") or 0)
    thought = count(mapping(stated.get("output_tokens_details")), "thinking_tokens") or 0
    return Leaves(
        input_tokens=given or 0,
        cache_read_tokens=count(stated, "cache_read_input_tokens") or 0,
        cache_write_5m_tokens=rest(written, hour),  # five minutes is what a write lasts unless stated
        cache_write_1h_tokens=hour,
        output_tokens=rest(made or 0, thought),
        reasoning_tokens=thought,
    )


def prompt(body: Mapping) -> Prompt:
    tools = [{**tool, "parameters": tool.get("input_schema")} for tool in mappings(body.get("tools"))]
    found = Prompt([], tools=tools)
    if body.get("system"):
        found.turns.append(_turn(found, "system", body["system"]))
    for message in mappings(body.get("messages")):
        found.turns.append(_turn(found, text(message.get("role")) or "", message.get("content")))
    return found


def _turn(found: Prompt, role: str, content: Any) -> Turn:
    turn = Turn([content] if isinstance(content, str) else [], role=role)
    for block in mappings(content):
        if isinstance(block.get("text"), str):
            turn.texts.append(block["text"])
        elif block.get("type") == "tool_use":
            turn.texts += [text(block.get("name")) or "", dumps(block.get("input"))]
        elif block.get("type") == "tool_result" and isinstance(block.get("content"), str):
            turn.texts.append(block["content"])
        elif block.get("type") == "tool_result":
            turn.texts += [part["text"] for part in mappings(block.get("content")) if isinstance(part.get("text"), str)]
        else:
            found.uncounted = True
    return turn
