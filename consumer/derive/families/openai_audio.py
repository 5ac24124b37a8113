"""Transcription, translation and speech in OpenAI's form: https://platform.openai.com/docs/api-reference/audio

A transcription states tokens, or the seconds it is billed by; speech states tokens only in its event stream. An answer that
is audio or plain text states nothing.
"""

from consumer.derive.answer import Answer
from consumer.derive.families.openai_chat import fail
from consumer.derive.request import Prompt, Request, Turn, params, path_part
from consumer.derive.untrusted import Mapping, count, mapping, short, text
from consumer.derive.usage import Leaves, inclusive

NAME = "openai_audio"

EVENTS = ("transcript.text.", "speech.audio.")


def ask(body: Mapping, path: str) -> Request:
    return Request(
        model=short(body.get("model")) or path_part(path, "/deployments/"),
        params=params(body, response_format=body.get("response_format"), voice=body.get("voice"), language=body.get("language")),
        stream=body.get("stream") in (True, "true") or body.get("stream_format") == "sse",
    )


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if document.get("error") is not None:
        fail(answer, document["error"])
        return
    choice, form = answer.choice(0), text(document.get("type")) or ""
    answer.model = short(document.get("model")) or answer.model
    answer.state(document.get("usage"))
    answer.understood = True
    if form == "transcript.text.delta":
        answer.add(choice.text, document.get("delta"))
    elif form == "speech.audio.delta":
        answer.generated += 1
    elif form in ("transcript.text.done", "speech.audio.done"):
        answer.finished = True
        answer.state({"made": "speech"} if form == "speech.audio.done" else None)
    elif not form and "text" in document:
        answer.add(choice.text, document.get("text"))
        answer.finished = True


def leaves(stated: Mapping) -> Leaves | None:
    """Transcription makes text of audio, speech audio of text."""
    given, output = mapping(stated.get("input_token_details")), count(stated, "output_tokens")
    return inclusive(
        prompt=count(stated, "input_tokens"),
        completion=output,
        total=count(stated, "total_tokens"),
        audio_in=count(given, "audio_tokens") or 0,
        audio_out=(output or 0) if stated.get("made") == "speech" else 0,
    )


def prompt(body: Mapping) -> Prompt:
    given = text(body.get("input"))
    return Prompt([Turn([given] if given else [])], uncounted=True, chat=False)
