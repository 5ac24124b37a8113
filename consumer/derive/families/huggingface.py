"""Text Generation Inference's own API, as Hugging Face's endpoints speak it: https://huggingface.co/docs/text-generation-inference

`/generate` answers one object, `/generate_stream` events of one token each; with `details` they are counted. What Hugging
Face's router serves under /v1 is OpenAI's form.
"""

from consumer.derive.answer import Answer
from consumer.derive.request import Prompt, Request, Turn, params
from consumer.derive.untrusted import Mapping, count, items, mapping, short, text
from consumer.derive.usage import Leaves

NAME = "huggingface"


def ask(body: Mapping, path: str) -> Request:
    parameters = mapping(body.get("parameters"))
    return Request(
        model=short(body.get("model")),
        params=params(parameters, max_tokens=parameters.get("max_new_tokens")),
        stream=body.get("stream") is True,
    )


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if "error" in document:
        answer.fail(document.get("error_type"))
        return
    choice, token, details = answer.choice(0), mapping(document.get("token")), mapping(document.get("details"))
    answer.understood = True
    if token.get("special") is not True:
        answer.add(choice.text, token.get("text"))
    if not token:
        answer.add(choice.text, document.get("generated_text"))
        answer.finished = True
    if details:
        prefill = items(details.get("prefill"))
        counted = {"input_length": len(prefill)} if prefill else {}
        answer.state({**counted, **{name: details.get(name) for name in ("input_length", "generated_tokens") if name in details}})
        answer.finish(choice, details.get("finish_reason"))


def leaves(stated: Mapping) -> Leaves | None:
    given = count(stated, "input_length")
    return None if given is None else Leaves(input_tokens=given, output_tokens=count(stated, "generated_tokens") or 0)


def prompt(body: Mapping) -> Prompt:
    given = text(body.get("inputs"))
    return Prompt([Turn([given] if given else [])], uncounted=given is None, chat=False)
