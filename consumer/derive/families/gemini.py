"""Gemini's generateContent and streamGenerateContent (SSE and JSON array), on AI Studio and on Vertex.

https://ai.google.dev/api/generate-content#UsageMetadata: cached tokens are inside `promptTokenCount`; thoughts and
tool results stand beside the candidates' and the prompt's. Details split a count by modality.
"""

from typing import Any

from consumer.derive.answer import Answer, Choice
from consumer.derive.request import Prompt, Request, Turn, params, path_part
from consumer.derive.untrusted import Mapping, count, dumps, index, items, mapping, mappings, short
from consumer.derive.usage import Leaves, rest

NAME = "gemini"


def ask(body: Mapping, path: str) -> Request:
    config = mapping(body.get("generationConfig") or body.get("generation_config"))
    thinking = mapping(config.get("thinkingConfig"))
    return Request(
        model=path_part(path, "/models/") or short(body.get("model")),
        params=params(
            config,
            top_p=config.get("topP"),
            top_k=config.get("topK"),
            n=config.get("candidateCount"),
            max_tokens=config.get("maxOutputTokens"),
            frequency_penalty=config.get("frequencyPenalty"),
            presence_penalty=config.get("presencePenalty"),
            response_format=config.get("responseMimeType"),
            thinking_budget_tokens=thinking.get("thinkingBudget"),
            reasoning_effort=thinking.get("thinkingLevel"),
        ),
        stream=":streamGenerateContent" in path,
        service_tier=short(body.get("serviceTier") or body.get("service_tier")),
    )


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if isinstance(document.get("error"), dict):
        answer.fail(document["error"].get("status") or document["error"].get("code"))
    answer.model = short(document.get("modelVersion")) or answer.model
    usage = document.get("usageMetadata")
    answer.state(usage)
    answer.service_tier = _tier(mapping(usage)) or answer.service_tier
    if "candidates" in document or "usageMetadata" in document or "promptFeedback" in document:
        answer.understood = True
    if reason := mapping(document.get("promptFeedback")).get("blockReason"):
        answer.finish(answer.choice(0), reason)
    if "embedding" in document or "embeddings" in document:
        answer.understood = answer.finished = True
    for candidate in mappings(document.get("candidates")):
        choice = answer.choice(index(candidate.get("index")))
        for part in mappings(mapping(candidate.get("content")).get("parts")):
            _fold_part(answer, choice, part)
        answer.finish(choice, candidate.get("finishReason"))
        _count_searches(answer, mappings([candidate.get("groundingMetadata")]))


def _fold_part(answer: Answer, choice: Choice, part: Mapping) -> None:
    answer.add(choice.reasoning if part.get("thought") is True else choice.text, part.get("text"))
    call = part.get("functionCall")
    if isinstance(call, dict):
        tool = choice.tool(len(choice.tools))
        answer.name_tool(tool, call.get("name"), call.get("id"))
        answer.add(tool.arguments, dumps(call.get("args") or {}))


def _count_searches(answer: Answer, grounding: list[Mapping]) -> None:
    """Grounding with Google Search: Gemini 3 is billed per query, earlier models per prompt. At list price, without free quotas."""
    for each in grounding:
        if queries := [query for query in items(each.get("webSearchQueries")) if isinstance(query, str) and query]:
            earlier = (answer.model or "").startswith(("gemini-1", "gemini-2"))
            answer.web_searches = 1 if earlier else max(answer.web_searches, len(set(queries)))


def _tier(usage: Mapping) -> str | None:
    """AI Studio says `serviceTier`, Vertex `trafficType` (ON_DEMAND, ON_DEMAND_FLEX, PROVISIONED_THROUGHPUT)."""
    stated = short(usage.get("serviceTier")) or short(usage.get("trafficType"))
    plain = (stated or "").lower()
    return (plain.removeprefix("on_demand_") or None) if plain != "on_demand" else "standard"


def leaves(stated: Mapping) -> Leaves | None:
    given, made = count(stated, "promptTokenCount"), count(stated, "candidatesTokenCount")
    thought, total = count(stated, "thoughtsTokenCount") or 0, count(stated, "totalTokenCount")
    if given is None and made is None and total is None:
        return None
    tools = count(stated, "toolUsePromptTokenCount") or 0
    cached = count(stated, "cachedContentTokenCount") or 0
    cached_parts, parts = _modalities(stated, "cacheTokensDetails"), _input_modalities(stated)
    audio, image = _apart(parts, cached_parts, "AUDIO"), _apart(parts, cached_parts, "IMAGE")
    cached_audio = min(cached_parts.get("AUDIO", 0), cached)
    out = _modalities(stated, "candidatesTokensDetails")
    return Leaves(
        input_tokens=rest((given or 0) + tools, cached, audio, image),
        cache_read_tokens=cached - cached_audio,
        cache_read_audio_tokens=cached_audio,
        input_audio_tokens=audio,
        input_image_tokens=image,
        output_tokens=rest(made or 0, out.get("AUDIO", 0), out.get("IMAGE", 0)),
        reasoning_tokens=thought,
        output_audio_tokens=out.get("AUDIO", 0),
        output_image_tokens=out.get("IMAGE", 0),
    )


def _modalities(stated: Mapping, name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for detail in mappings(stated.get(name)):
        modality = str(short(detail.get("modality")))
        found[modality] = found.get(modality, 0) + (count(detail, "tokenCount") or 0)
    return found


def _input_modalities(stated: Mapping) -> dict[str, int]:
    given, tools = _modalities(stated, "promptTokensDetails"), _modalities(stated, "toolUsePromptTokensDetails")
    return {name: given.get(name, 0) + tools.get(name, 0) for name in given | tools}


def _apart(parts: dict[str, int], cached: dict[str, int], modality: str) -> int:
    """Tokens of a modality that were not read from the cache."""
    return max(parts.get(modality, 0) - cached.get(modality, 0), 0)


def prompt(body: Mapping) -> Prompt:
    if "contents" not in body:
        return _embedded(body)
    found = Prompt([], tools=[f for tool in mappings(body.get("tools")) for f in mappings(tool.get("functionDeclarations"))])
    system = body.get("systemInstruction") or body.get("system_instruction")
    for content in [*([system] if isinstance(system, dict) else []), *mappings(body.get("contents"))]:
        found.turns.append(_turn(found, content))
    found.uncounted = found.uncounted or "cachedContent" in body
    return found


def _embedded(body: Mapping) -> Prompt:
    """embedContent, or batchEmbedContents."""
    found = Prompt([], chat=False)
    for each in [body, *mappings(body.get("requests"))]:
        if isinstance(each.get("content"), dict):
            found.turns.append(_turn(found, each["content"]))
    found.uncounted = found.uncounted or not found.turns
    return found


def _turn(found: Prompt, content: Mapping) -> Turn:
    turn = Turn([], role=str(short(content.get("role")) or ""))
    for part in mappings(content.get("parts")):
        given: Any = part.get("text")
        if isinstance(given, str):
            turn.texts.append(given)
        elif "functionCall" in part or "functionResponse" in part:
            turn.texts.append(dumps(part.get("functionCall") or part.get("functionResponse")))
        else:
            found.uncounted = True
    return turn
