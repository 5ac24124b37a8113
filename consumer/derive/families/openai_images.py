"""Images in OpenAI's form: https://platform.openai.com/docs/api-reference/images and its streaming events.

GPT Image models state tokens; models that are billed by the image state none.
"""

from consumer.derive.answer import Answer
from consumer.derive.families.openai_chat import fail
from consumer.derive.request import Prompt, Request, Turn, params, path_part
from consumer.derive.untrusted import Mapping, count, mapping, short, text
from consumer.derive.usage import Leaves, inclusive

NAME = "openai_images"

EVENTS = ("image_generation.", "image_edit.")


def ask(body: Mapping, path: str) -> Request:
    return Request(
        model=short(body.get("model")) or path_part(path, "/deployments/"),
        params=params(body, quality=body.get("quality"), size=body.get("size"), background=body.get("background")),
        stream=body.get("stream") in (True, "true"),
    )


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if document.get("error") is not None:
        fail(answer, document["error"])
    answer.model = short(document.get("model")) or answer.model
    answer.state(document.get("usage"))
    form = document.get("type")
    whole = isinstance(document.get("data"), list) or (form is None and answer.stated)
    if whole or form in ("image_generation.completed", "image_edit.completed"):
        answer.understood = answer.finished = True
    elif isinstance(form, str) and form.startswith(EVENTS):
        answer.understood = True


def leaves(stated: Mapping) -> Leaves | None:
    """Unless it is split, all that was made is image."""
    given, made = mapping(stated.get("input_tokens_details")), stated.get("output_tokens_details")
    output = count(stated, "output_tokens")
    return inclusive(
        prompt=count(stated, "input_tokens"),
        completion=output,
        total=count(stated, "total_tokens"),
        cached=count(given, "cached_tokens") or 0,
        image_in=count(given, "image_tokens") or 0,
        image_out=(count(made, "image_tokens") or 0) if isinstance(made, dict) else output or 0,
    )


def prompt(body: Mapping) -> Prompt:
    given = text(body.get("prompt"))
    return Prompt([Turn([given] if given else [])], uncounted=True, chat=False)
