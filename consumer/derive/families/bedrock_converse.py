"""Bedrock's Converse and ConverseStream: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html

Cache reads and writes stand beside `inputTokens`; `totalTokens` holds them all. Reasoning is inside `outputTokens`, uncounted.
"""

import re
from typing import Any
from urllib.parse import unquote

from consumer.derive.answer import Answer, Choice
from consumer.derive.request import Prompt, Request, Turn, params
from consumer.derive.untrusted import Mapping, count, dumps, mapping, mappings, short, text
from consumer.derive.usage import Leaves, rest

NAME = "bedrock_converse"

_MODEL = re.compile(r"/model/([^/?]+)/")


def model_of(path: str) -> str | None:
    """An id with its colon, or the ARN of a profile, whose slash is encoded."""
    found = _MODEL.search(path)
    return short(unquote(found[1])) if found else None


def ask(body: Mapping, path: str) -> Request:
    config = mapping(body.get("inferenceConfig"))
    return Request(
        model=model_of(path),
        params=params(
            config,
            max_tokens=config.get("maxTokens"),
            top_p=config.get("topP"),
            tool_choice=next(iter(mapping(mapping(body.get("toolConfig")).get("toolChoice"))), None),
        ),
        stream=path.partition("?")[0].endswith("-stream"),
        service_tier=short(mapping(body.get("serviceTier")).get("type")),
        speed=_speed(body),
    )


def _speed(body: Mapping) -> str | None:
    return short(mapping(body.get("performanceConfig")).get("latency"))


def fold(answer: Answer, document: Mapping, event: str) -> None:
    """A whole answer, or one event: on the wire an event's name stands in the message's header, in an SDK's log around it."""
    if event.endswith(("Exception", "Error")) or document.keys() == {"message"}:
        fail(answer, event, document)
        return
    choice = answer.choice(0)
    if "output" in document or "usage" in document or "metrics" in document:
        _fold_whole(answer, choice, document)
    elif "role" in document or "messageStart" in document:
        answer.understood = True
    elif "start" in document or "delta" in document:
        answer.understood = True
        _fold_start(answer, choice, document)
        _fold_delta(answer, choice, document.get("contentBlockIndex"), mapping(document.get("delta")))
    elif "stopReason" in document:
        answer.understood = True
        answer.finish(choice, document.get("stopReason"))
    for inner in ("contentBlockStart", "contentBlockDelta", "messageStop", "metadata"):
        if isinstance(document.get(inner), dict):
            fold(answer, document[inner], "")


def fail(answer: Answer, event: str, document: Mapping) -> None:
    """Errors are `{"message": text}`; their code is in a header, or is the event's name."""
    answer.fail(event or document.get("__type"))


def _fold_whole(answer: Answer, choice: Choice, document: Mapping) -> None:
    answer.understood = True
    answer.state(document.get("usage"))
    answer.service_tier = short(mapping(document.get("serviceTier")).get("type")) or answer.service_tier
    for block in mappings(mapping(mapping(document.get("output")).get("message")).get("content")):
        answer.add(choice.text, block.get("text"))
        answer.add(choice.reasoning, mapping(mapping(block.get("reasoningContent")).get("reasoningText")).get("text"))
        if isinstance(block.get("toolUse"), dict):
            use = block["toolUse"]
            tool = choice.tool(len(choice.tools))
            answer.name_tool(tool, use.get("name"), use.get("toolUseId"))
            answer.add(tool.arguments, dumps(use.get("input") or {}))
    answer.finish(choice, document.get("stopReason"))


def _fold_start(answer: Answer, choice: Choice, document: Mapping) -> None:
    use = mapping(document.get("start")).get("toolUse")
    if isinstance(use, dict):
        answer.name_tool(choice.tool(short(document.get("contentBlockIndex"))), use.get("name"), use.get("toolUseId"))


def _fold_delta(answer: Answer, choice: Choice, at: Any, delta: Mapping) -> None:
    answer.add(choice.text, delta.get("text"))
    answer.add(choice.reasoning, mapping(delta.get("reasoningContent")).get("text"))
    if isinstance(delta.get("toolUse"), dict):
        answer.add(choice.tool(short(at)).arguments, delta["toolUse"].get("input"))


def leaves(stated: Mapping) -> Leaves | None:
    given, made = count(stated, "inputTokens"), count(stated, "outputTokens")
    if given is None and made is None:
        return None
    written = _either(stated, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    hour = sum(count(each, "inputTokens") or 0 for each in mappings(stated.get("cacheDetails")) if each.get("ttl") == "1h")
    return Leaves(
        input_tokens=given or 0,
        cache_read_tokens=_either(stated, "cacheReadInputTokens", "cacheReadInputTokenCount"),
        cache_write_5m_tokens=rest(written, hour),
        cache_write_1h_tokens=hour,
        output_tokens=made or 0,
    )


def _either(stated: Mapping, name: str, older: str) -> int:
    """Bedrock says both names of the same count."""
    return count(stated, name) or count(stated, older) or 0


def prompt(body: Mapping) -> Prompt:
    tools = [mapping(tool.get("toolSpec")) for tool in mappings(mapping(body.get("toolConfig")).get("tools"))]
    found = Prompt([], tools=[{**tool, "parameters": mapping(tool.get("inputSchema")).get("json")} for tool in tools])
    found.turns += [_turn(found, "system", [block]) for block in mappings(body.get("system"))]
    for message in mappings(body.get("messages")):
        found.turns.append(_turn(found, text(message.get("role")) or "", mappings(message.get("content"))))
    return found


def _turn(found: Prompt, role: str, content: list[Mapping]) -> Turn:
    turn = Turn([], role=role)
    for block in content:
        if isinstance(block.get("text"), str):
            turn.texts.append(block["text"])
        elif "toolUse" in block:
            use = mapping(block["toolUse"])
            turn.texts += [text(use.get("name")) or "", dumps(use.get("input"))]
        elif "toolResult" in block:
            for part in mappings(mapping(block["toolResult"]).get("content")):
                turn.texts.append(text(part.get("text")) or dumps(part.get("json") or ""))
        elif "cachePoint" not in block:
            found.uncounted = True
    return turn
