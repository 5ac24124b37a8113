"""A batch's results, one JSON line each: OpenAI's and Mistral's files, Anthropic's results, Gemini's files.

Each line holds a whole answer in its provider's form. Their usage is added up, at the price of a batch; the file is the
first that says what was used. Who fetches it twice has two records of the same usage.
"""

from consumer.derive.answer import Answer
from consumer.derive.families import recognition
from consumer.derive.request import Prompt, Request
from consumer.derive.untrusted import Malformed, Mapping, count, mapping
from consumer.derive.usage import ALL, Leaves, total

NAME = "batches"


def ask(body: Mapping, path: str) -> Request:
    return Request(service_tier="batch")


def is_result(document: Mapping) -> bool:
    named = "custom_id" in document or "key" in document or "request" in document
    return named and isinstance(document.get("response") or document.get("result") or document.get("error"), dict)


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if not is_result(document):
        return
    answer.understood = answer.finished = answer.deferred = True
    answer.service_tier = "batch"
    known = mapping(answer.stated)
    _add(answer, "results", 1 + (known.get("results") or 0))
    body = _body(document)
    family = recognition.of_answer(body)
    if family is None:
        _add(answer, "without_usage", 1 + (known.get("without_usage") or 0))
        return
    one = Answer()
    family.fold(one, body, "")
    _name(answer, one.model)
    try:
        found = family.leaves(one.stated or {})
    except Malformed as error:
        _add(answer, "unreadable", str(error))
        return
    if found is None:
        _add(answer, "without_usage", 1 + (known.get("without_usage") or 0))
    else:
        _add_leaves(answer, found)


def _body(document: Mapping) -> Mapping:
    """OpenAI: response.body; Anthropic: result.message; Gemini: response."""
    response = mapping(document.get("response"))
    return mapping(response.get("body")) or mapping(mapping(document.get("result")).get("message")) or response


def _add(answer: Answer, name: str, value: int | str) -> None:
    answer.state({name: value})


def _name(answer: Answer, model: str | None) -> None:
    """Results of several models have no one price."""
    models = {model, answer.model} - {None}
    answer.remark = answer.remark or ("results of several models" if len(models) > 1 else None)
    answer.model = None if answer.remark else next(iter(models), None)


def _add_leaves(answer: Answer, found: Leaves) -> None:
    known = mapping(mapping(answer.stated).get("leaves"))
    added = {name: getattr(found, name) + known.get(name, 0) for name in ALL if getattr(found, name) or name in known}
    answer.state({"leaves": {"output_tokens": 0, **added}})


def leaves(stated: Mapping) -> Leaves | None:
    """Of the sum that `fold` made. Raises Malformed when a line's usage could not be read."""
    if isinstance(stated.get("unreadable"), str):
        raise Malformed(stated["unreadable"])
    known = mapping(stated.get("leaves"))
    return total([Leaves(**{name: count(known, name) or 0 for name in ALL})]) if known else None


def prompt(body: Mapping) -> Prompt:
    return Prompt([], uncounted=True)
