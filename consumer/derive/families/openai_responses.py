"""The Responses API: https://platform.openai.com/docs/api-reference/responses and its streaming events."""

from typing import Any

from consumer.derive.answer import Answer, Choice
from consumer.derive.families.openai_chat import fail
from consumer.derive.request import Prompt, Request, Turn, kind, params
from consumer.derive.untrusted import Mapping, count, mapping, mappings, short, text
from consumer.derive.usage import Leaves, inclusive

NAME = "openai_responses"

_OBJECTS = ("response", "response.compaction")
_OVER = {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}


def ask(body: Mapping, path: str) -> Request:
    return Request(
        model=short(body.get("model")),
        params=params(
            body,
            max_tokens=body.get("max_output_tokens"),
            reasoning_effort=mapping(body.get("reasoning")).get("effort"),
            response_format=kind(mapping(body.get("text")).get("format")),
            tool_choice=kind(body.get("tool_choice")),
        ),
        stream=body.get("stream") is True,
        service_tier=short(body.get("service_tier")),
    )


def fold(answer: Answer, document: Mapping, event: str) -> None:
    form = document.get("type")
    if document.get("object") in _OBJECTS:
        _fold_response(answer, document, over=document.get("status") not in ("queued", "in_progress"))
    elif isinstance(document.get("response"), dict) and isinstance(form, str):
        _fold_response(answer, document["response"], over=form in _OVER)
    elif isinstance(form, str) and form.startswith("response."):
        answer.understood = True
        fold_event(answer, answer.choice(0), form, document)
    elif form == "error":
        fail(answer, document.get("error") or document)
    elif document.get("error") is not None:
        fail(answer, document["error"])


def _fold_response(answer: Answer, response: Mapping, *, over: bool) -> None:
    answer.understood = True
    answer.model = short(response.get("model")) or answer.model
    answer.service_tier = short(response.get("service_tier")) or answer.service_tier
    answer.deferred = answer.deferred or response.get("background") is True
    answer.state(response.get("usage"))
    if response.get("error") is not None:
        fail(answer, response["error"])
    if over:
        _fold_output(answer, mappings(response.get("output")))
        reason = mapping(response.get("incomplete_details")).get("reason")
        answer.finish(answer.choice(0), reason or response.get("status") or "completed")


def _fold_output(answer: Answer, output: list[Mapping]) -> None:
    """The whole output repeats at a stream's end what its events said."""
    repeated = answer.generated > 0
    answer.web_searches = answer.file_searches = 0
    for item in output:
        _count_search(answer, item)
        if not repeated:
            _fold_item(answer, answer.choice(0), item)


def _fold_item(answer: Answer, choice: Choice, item: Mapping) -> None:
    form = item.get("type")
    if form == "message":
        for part in mappings(item.get("content")):
            answer.add(choice.text, part.get("text"))
            answer.add(choice.refusal, part.get("refusal"))
    elif form == "reasoning":
        for part in mappings(item.get("summary")) + mappings(item.get("content")):
            answer.add(choice.reasoning, part.get("text"))
    elif form in ("function_call", "custom_tool_call"):
        tool = choice.tool(len(choice.tools))
        answer.name_tool(tool, item.get("name"), item.get("call_id"))
        answer.add(tool.arguments, item.get("arguments", item.get("input")))


def fold_event(answer: Answer, choice: Choice, form: str, document: Mapping) -> None:
    piece = document.get("delta")
    if form == "response.output_text.delta":
        answer.add(choice.text, piece)
    elif form == "response.refusal.delta":
        answer.add(choice.refusal, piece)
    elif form in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
        answer.add(choice.reasoning, piece)
    elif form in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
        answer.add(choice.tool(_slot(document)).arguments, piece)
    elif form == "response.output_item.added":
        item = mapping(document.get("item"))
        if item.get("type") in ("function_call", "custom_tool_call"):
            answer.name_tool(choice.tool(_slot(document)), item.get("name"), item.get("call_id"))
    elif form == "response.output_item.done":
        _count_search(answer, mapping(document.get("item")))


def _slot(document: Mapping) -> Any:
    at = document.get("output_index")
    return at if isinstance(at, int) else short(document.get("item_id"))


def _count_search(answer: Answer, item: Mapping) -> None:
    """OpenAI bills a search, not the opening of a page that it found."""
    if item.get("type") == "web_search_call" and mapping(item.get("action")).get("type", "search") == "search":
        answer.web_searches += 1
    elif item.get("type") == "file_search_call":
        answer.file_searches += 1


def leaves(stated: Mapping) -> Leaves | None:
    given, made = mapping(stated.get("input_tokens_details")), mapping(stated.get("output_tokens_details"))
    return inclusive(
        prompt=count(stated, "input_tokens"),
        completion=count(stated, "output_tokens"),
        total=count(stated, "total_tokens"),
        cached=count(given, "cached_tokens") or count(given, "cache_read_input_tokens") or 0,  # Perplexity says the latter
        written=count(given, "cache_write_tokens") or 0,
        audio_in=count(given, "audio_tokens") or 0,
        image_in=count(given, "image_tokens") or 0,
        reasoning=count(made, "reasoning_tokens") or 0,
        audio_out=count(made, "audio_tokens") or 0,
        image_out=count(made, "image_tokens") or 0,
    )


def prompt(body: Mapping) -> Prompt:
    found = Prompt([], tools=[tool for tool in mappings(body.get("tools")) if tool.get("type") == "function"])
    if instructions := text(body.get("instructions")):
        found.turns.append(Turn([instructions], role="system"))
    given = body.get("input")
    if isinstance(given, str):
        found.turns.append(Turn([given], role="user"))
    for item in mappings(given):
        found.turns.append(_turn(found, item))
    # An earlier response is part of the prompt, and only the provider knows it.
    found.uncounted = found.uncounted or any(body.get(name) for name in ("previous_response_id", "conversation", "prompt"))
    return found


def _turn(found: Prompt, item: Mapping) -> Turn:
    turn = Turn([], role=text(item.get("role")) or "")
    for value in (item.get("content"), item.get("name"), item.get("arguments"), item.get("output")):
        if isinstance(value, str):
            turn.texts.append(value)
    for part in mappings(item.get("content")) + mappings(item.get("output")):
        if isinstance(part.get("text"), str):
            turn.texts.append(part["text"])
        else:
            found.uncounted = True
    return turn
