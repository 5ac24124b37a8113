"""A batch's results, one JSON line each: OpenAI's and Mistral's files, Anthropic's results, Gemini's files.

Each line holds a whole answer in its provider's form. Their usage is added up, at the price of a batch; the file is the
first that says what was used. Who fetches it twice has two records of the same usage.
"""

from consumer.derive.answer import Answer
from consumer.derive.families import recognition
from consumer.derive.request import Prompt, Request
from consumer.derive.untrusted import Malformed, Mapping, count, mapping, mappings
from consumer.derive.usage import ALL, Leaves, total

NAME = "batches"


def ask(body: Mapping, path: str) -> Request:
    return Request(service_tier="batch")


def is_result(document: Mapping) -> bool:
    named = "custom_id" in document or "key" in document or "request" in document
    return named and isinstance(document.get("response") or document.get("result") or document.get("error"), dict)


def fold(answer: Answer, document: Mapping, event: str) -> None:
    for each in mappings(mapping(mapping(document.get("response")).get("inlinedResponses")).get("inlinedResponses")):
        _fold_result(answer, each)  # Gemini's, of a batch that came without a file
    if is_result(document):
        _fold_result(answer, document)


def _fold_result(answer: Answer, document: Mapping) -> None:
    answer.understood = answer.finished = answer.deferred = True
    answer.service_tier = "batch"
    _count(answer, "results", 1)
    body = _body(document)
    family, one = recognition.of_answer(body), Answer()
    if family is not None:
        family.fold(one, body, "")
        _name(answer, one.model)
    try:
        found = family.leaves(one.stated) if family and one.stated else None
        searches = count(mapping(mapping(one.stated).get("server_tool_use")), "web_search_requests") or 0
    except Malformed as error:
        answer.state({"unreadable": str(error)})
        return
    if found is None:
        _count(answer, "without_usage", 1)
    else:
        _add(answer, found, searches)
        answer.web_searches += one.web_searches
        answer.file_searches += one.file_searches


def _body(document: Mapping) -> Mapping:
    """OpenAI: response.body; Anthropic: result.message; Gemini: response."""
    response = mapping(document.get("response"))
    return mapping(response.get("body")) or mapping(mapping(document.get("result")).get("message")) or response


def _count(answer: Answer, name: str, more: int) -> None:
    answer.state({name: more + (mapping(answer.stated).get(name) or 0)})


def _name(answer: Answer, model: str | None) -> None:
    """Results of several models have no one price."""
    models = {model, answer.model} - {None}
    answer.remark = answer.remark or ("results of several models" if len(models) > 1 else None)
    answer.model = None if answer.remark else next(iter(models), None)


def _add(answer: Answer, found: Leaves, searches: int) -> None:
    known = mapping(answer.stated)
    sums = mapping(known.get("leaves"))
    added = {name: getattr(found, name) + sums.get(name, 0) for name in ALL if getattr(found, name) or name in sums}
    answer.state({"leaves": {"output_tokens": 0, **added}})
    if searches := searches + (mapping(known.get("server_tool_use")).get("web_search_requests") or 0):
        answer.state({"server_tool_use": {"web_search_requests": searches}})  # as Anthropic states them


def leaves(stated: Mapping) -> Leaves | None:
    """Of the sum that `fold` made. Raises Malformed when a line's usage could not be read."""
    if isinstance(stated.get("unreadable"), str):
        raise Malformed(stated["unreadable"])
    known = mapping(stated.get("leaves"))
    return total([Leaves(**{name: count(known, name) or 0 for name in ALL})]) if known else None


def prompt(body: Mapping) -> Prompt:
    return Prompt([], uncounted=True)
