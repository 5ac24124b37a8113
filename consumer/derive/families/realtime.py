"""Sessions over a WebSocket: OpenAI's Realtime API (Azure's and xAI's too), its Responses API, and Gemini's Live API.

https://platform.openai.com/docs/api-reference/realtime-server-events and https://ai.google.dev/api/live . Every response
of a session states its own usage, and each counts. A transcription of the input is another model's work: it stays apart.
"""

from typing import Any
from urllib.parse import parse_qs

from consumer.derive.answer import Answer, Choice
from consumer.derive.families import gemini, openai_responses
from consumer.derive.families.openai_chat import fail
from consumer.derive.request import Prompt, Request
from consumer.derive.untrusted import Mapping, count, dumps, items, mapping, mappings, short
from consumer.derive.usage import Leaves, inclusive, total

NAME = "realtime"

_RESPONSES_MAX = 10_000  # of one session
_TEXTS = {"response.output_text.delta", "response.text.delta", "response.output_audio_transcript.delta", "response.audio_transcript.delta"}
_OVER = {"response.done", "response.completed", "response.incomplete", "response.failed"}
_GEMINI = {"responseTokenCount": "candidatesTokenCount", "responseTokensDetails": "candidatesTokensDetails"}


def ask(body: Mapping, path: str) -> Request:
    query = parse_qs(path.partition("?")[2], max_num_fields=100) if path.count("&") < 100 else {}
    named = query.get("model") or query.get("deployment") or [""]
    setup = mapping(body.get("setup") or body.get("session"))  # Gemini's first message; OpenAI's `session.update`
    return Request(model=short(named[0]) or _bare(setup.get("model")), stream=True)


def _bare(model: Any) -> str | None:
    return short((short(model) or "").removeprefix("models/"))


def fold(answer: Answer, document: Mapping, event: str) -> None:
    form, choice = document.get("type"), answer.choice(0)
    if isinstance(form, str):
        _fold_event(answer, choice, form, document)
    else:
        _fold_gemini(answer, choice, document)


def _fold_event(answer: Answer, choice: Choice, form: str, document: Mapping) -> None:
    answer.understood = True
    if form in ("session.created", "session.updated"):
        _fold_session(answer, mapping(document.get("session")))
    elif form in _TEXTS:
        answer.add(choice.text, document.get("delta"))
    elif form in _OVER:
        _fold_response(answer, choice, mapping(document.get("response")))
    elif form == "conversation.item.input_audio_transcription.completed":
        _fold_transcription(answer, choice, document)
    elif form == "error":
        fail(answer, document.get("error"))
    else:
        openai_responses.fold_event(answer, choice, form, document)


def _fold_session(answer: Answer, session: Mapping) -> None:
    """A session that only transcribes names its model further in."""
    if session.get("type") == "transcription":
        answer.state({"session": "transcription"})
        session = mapping(mapping(mapping(session.get("audio")).get("input")).get("transcription"))
    answer.model = short(session.get("model")) or answer.model


def _fold_transcription(answer: Answer, choice: Choice, document: Mapping) -> None:
    if isinstance(document.get("usage"), dict):
        _append(answer, "transcriptions", document["usage"])
    if mapping(answer.stated).get("session") == "transcription":
        answer.add(choice.text, document.get("transcript"))
        answer.finish(choice, "completed")
    else:
        answer.remark = "without the input's transcription, which another model made"


def _fold_response(answer: Answer, choice: Choice, response: Mapping) -> None:
    answer.model = answer.model or short(response.get("model"))
    if isinstance(response.get("usage"), dict):
        _append(answer, "responses", response["usage"])
    answer.finish(choice, response.get("status") or "completed")
    if response.get("status") == "failed":
        fail(answer, mapping(response.get("status_details")).get("error"))


def _fold_gemini(answer: Answer, choice: Choice, document: Mapping) -> None:
    content = mapping(document.get("serverContent"))
    answer.understood = answer.understood or bool(content) or "setupComplete" in document or "usageMetadata" in document
    for part in mappings(mapping(content.get("modelTurn")).get("parts")):
        answer.add(choice.text, part.get("text"))
    answer.add(choice.text, mapping(content.get("outputTranscription")).get("text"))
    for call in mappings(mapping(document.get("toolCall")).get("functionCalls")):
        tool = choice.tool(len(choice.tools))
        answer.name_tool(tool, call.get("name"), call.get("id"))
        answer.add(tool.arguments, dumps(call.get("args") or {}))
    if isinstance(document.get("usageMetadata"), dict):
        _append(answer, "responses", document["usageMetadata"])
    if content.get("turnComplete") is True:
        answer.finish(choice, "turn_complete")


def _append(answer: Answer, name: str, usage: Mapping) -> None:
    before = items(mapping(answer.stated).get(name))
    if len(before) < _RESPONSES_MAX:
        before.append(usage)
    else:
        answer.remark = f"of the first {_RESPONSES_MAX} responses alone"
    answer.state({name: before})


def leaves(stated: Mapping) -> Leaves | None:
    made = "transcriptions" if stated.get("session") == "transcription" else "responses"
    found = (_leaves(each) for each in mappings(stated.get(made)))
    return total(each for each in found if each is not None)


def _leaves(stated: Mapping) -> Leaves | None:
    if "totalTokenCount" in stated or "promptTokenCount" in stated:
        return gemini.leaves({_GEMINI.get(name, name): value for name, value in stated.items()})
    if "input_tokens_details" in stated:
        return openai_responses.leaves(stated)
    given, made = mapping(stated.get("input_token_details")), mapping(stated.get("output_token_details"))
    split, cached = mapping(given.get("cached_tokens_details")), count(given, "cached_tokens") or 0
    cached_audio = min(count(split, "audio_tokens") or 0, cached)
    cached_image = min(count(split, "image_tokens") or 0, cached - cached_audio)
    return inclusive(
        prompt=count(stated, "input_tokens"),
        completion=count(stated, "output_tokens"),
        total=count(stated, "total_tokens"),
        cached=cached - cached_audio,
        cached_audio=cached_audio,
        audio_in=max((count(given, "audio_tokens") or 0) - cached_audio, 0),
        image_in=max((count(given, "image_tokens") or 0) - cached_image, 0),
        audio_out=count(made, "audio_tokens") or 0,
    )


def prompt(body: Mapping) -> Prompt:
    return Prompt([], uncounted=True)
