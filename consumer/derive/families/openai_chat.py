"""Chat completions and the older completions, as OpenAI defined them and most providers speak them.

https://platform.openai.com/docs/api-reference/chat ; additions of others are named where they are read.
"""

from typing import Any

from consumer.derive.answer import Answer, Choice, ToolCall
from consumer.derive.request import Prompt, Request, Turn, kind, params, path_part
from consumer.derive.untrusted import Mapping, count, dumps, index, items, mapping, mappings, short, text
from consumer.derive.usage import Leaves, inclusive

NAME = "openai_chat"


def ask(body: Mapping, path: str) -> Request:
    return Request(
        model=short(body.get("model")) or path_part(path, "/deployments/"),  # Azure names the deployment in the path
        params=params(
            body,
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
            reasoning_effort=body.get("reasoning_effort") or mapping(body.get("reasoning")).get("effort"),
            response_format=kind(body.get("response_format")),
            tool_choice=kind(body.get("tool_choice")),
            thinking=kind(body.get("thinking")),
        ),
        stream=body.get("stream") is True,
        service_tier=short(body.get("service_tier")),
    )


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if document.get("error") is not None:
        fail(answer, document["error"])
    elif document.get("object") == "error":  # Mistral, vLLM
        fail(answer, document)
    if (model := document.get("model")) != answer.model:
        answer.model = short(model) or answer.model
    if (version := document.get("system_fingerprint")) != answer.model_version:
        answer.model_version = short(version) or answer.model_version
    if (tier := document.get("service_tier")) != answer.service_tier:
        answer.service_tier = short(tier) or answer.service_tier
    if "x_groq" in document:
        answer.state(mapping(document["x_groq"]).get("usage"))
    answer.state(document.get("usage"))
    if isinstance(choices := document.get("choices"), list):
        answer.understood = True
        for each in choices:
            if isinstance(each, dict):
                _fold_choice(answer, each)


def fail(answer: Answer, error: Any) -> None:
    stated = mapping(error)
    answer.fail(stated.get("code") or stated.get("type"))


def _fold_choice(answer: Answer, source: Mapping) -> None:
    choice = answer.choice(index(source.get("index")))
    message = source.get("delta") or source.get("message")
    if isinstance(message, dict):
        if len(message) == 1 and isinstance(content := message.get("content"), str):  # as nearly all of a stream's are
            answer.add(choice.text, content)
        else:
            _fold_message(answer, choice, message)
    answer.add(choice.text, source.get("text"))  # completions
    answer.state(source.get("usage"))  # Moonshot
    if (reason := source.get("finish_reason")) is not None:
        answer.finish(choice, reason)
    if source.get("error") is not None:  # OpenRouter
        fail(answer, source["error"])


def _fold_message(answer: Answer, choice: Choice, message: Mapping) -> None:
    content = message.get("content")
    answer.add(choice.text, content)
    for part in mappings(content):  # Mistral
        answer.add(choice.text, part.get("text"))
        for thought in mappings(part.get("thinking")):
            answer.add(choice.reasoning, thought.get("text"))
    # DeepSeek and vLLM say reasoning_content, OpenRouter and Groq reasoning; who says both says the same twice.
    answer.add(choice.reasoning, text(message.get("reasoning_content")) or message.get("reasoning"))
    answer.add(choice.refusal, message.get("refusal"))
    answer.add(choice.text, mapping(message.get("audio")).get("transcript"))
    for position, call in enumerate(mappings(message.get("tool_calls"))):
        _fold_tool(answer, _slot(choice, call, position), call)
    if isinstance(message.get("function_call"), dict):
        _fold_function(answer, choice.tool("function_call"), message["function_call"])


def _slot(choice: Choice, call: Mapping, position: int) -> ToolCall:
    """Pieces of one call share an index and mostly only the first has the id; some servers give every call index 0."""
    at, call_id = index(call.get("index", position)), short(call.get("id"))
    if call_id or at not in choice.latest:
        choice.latest[at] = choice.tool((at, call_id))
    return choice.latest[at]


def _fold_tool(answer: Answer, tool: ToolCall, call: Mapping) -> None:
    answer.name_tool(tool, None, call.get("id"))
    _fold_function(answer, tool, mapping(call.get("function") or call.get("custom")))


def _fold_function(answer: Answer, tool: ToolCall, function: Mapping) -> None:
    answer.name_tool(tool, function.get("name"), None)
    arguments = function.get("arguments", function.get("input"))
    answer.add(tool.arguments, dumps(arguments) if isinstance(arguments, dict) else arguments)


def leaves(stated: Mapping) -> Leaves | None:
    if "citation_tokens" in stated:
        return _perplexity(stated)
    prompt, completion = mapping(stated.get("prompt_tokens_details")), mapping(stated.get("completion_tokens_details"))
    return inclusive(
        prompt=count(stated, "prompt_tokens"),
        completion=count(stated, "completion_tokens"),
        total=count(stated, "total_tokens"),
        cached=_cached(stated, prompt),
        written=count(prompt, "cache_write_tokens") or 0,  # OpenRouter, and OpenAI where writes are priced
        audio_in=count(prompt, "audio_tokens") or 0,
        image_in=count(prompt, "image_tokens") or 0,
        reasoning=count(completion, "reasoning_tokens") or count(stated, "reasoning_tokens") or 0,
        audio_out=count(completion, "audio_tokens") or 0,
        image_out=count(completion, "image_tokens") or 0,
    )


def _perplexity(stated: Mapping) -> Leaves:
    """Deep research: what it read to cite and what it reasoned stand beside the prompt and the completion, outside the total."""
    return Leaves(
        input_tokens=(count(stated, "prompt_tokens") or 0) + (count(stated, "citation_tokens") or 0),
        output_tokens=count(stated, "completion_tokens") or 0,
        reasoning_tokens=count(stated, "reasoning_tokens") or 0,
    )


def _cached(stated: Mapping, details: Mapping) -> int:
    """OpenAI; DeepSeek; Moonshot and Together; Mistral. One count under four names."""
    return (
        count(details, "cached_tokens")
        or count(stated, "prompt_cache_hit_tokens")
        or count(stated, "cached_tokens")
        or count(stated, "num_cached_tokens")
        or 0
    )


def prompt(body: Mapping) -> Prompt:
    if "messages" not in body:
        given = body.get("prompt")
        return Prompt([Turn([piece for piece in [given, *items(given)] if isinstance(piece, str)])], chat=False)
    found = Prompt([], tools=[mapping(tool.get("function")) for tool in mappings(body.get("tools"))])
    for message in mappings(body.get("messages")):
        turn = Turn(texts=[], role=text(message.get("role")) or "", name=text(message.get("name")) or "")
        _prompt_content(found, turn, message.get("content"))
        for call in mappings(message.get("tool_calls")):
            function = mapping(call.get("function"))
            turn.texts += [piece for piece in (function.get("name"), function.get("arguments")) if isinstance(piece, str)]
        found.turns.append(turn)
    return found


def _prompt_content(found: Prompt, turn: Turn, content: Any) -> None:
    if isinstance(content, str):
        turn.texts.append(content)
    for part in mappings(content):
        if isinstance(part.get("text"), str):
            turn.texts.append(part["text"])
        else:
            found.uncounted = True
