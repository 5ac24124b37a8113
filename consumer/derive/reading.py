"""An envelope's two bodies, read: what was asked, what was answered. Decides nothing about tokens or money."""

from dataclasses import dataclass, field

from consumer.derive import body as bodies
from consumer.derive import families
from consumer.derive.answer import Answer
from consumer.derive.documents import Body
from consumer.derive.families import Family, batches, bedrock_invoke, openai_chat, realtime
from consumer.derive.request import Request
from consumer.derive.untrusted import Mapping, mapping, short, text


@dataclass(slots=True)
class Reading:
    envelope: Mapping
    family: Family | None = None
    asked: Mapping = field(default_factory=dict)  # the request's JSON
    request: Request = field(default_factory=Request)
    answer: Answer = field(default_factory=Answer)
    response_body: Body = field(default_factory=Body)
    response_id: str | None = None  # the provider's name of the answer: whoever fetches it twice finds it twice
    content_end: int | None = None  # bytes of the answer's body up to the end of the first generated content
    error: str | None = None

    @property
    def target(self) -> Mapping:
        return mapping(self.envelope.get("target"))

    @property
    def response(self) -> Mapping:
        return mapping(self.envelope.get("response"))

    @property
    def status(self) -> int | None:
        found = self.response.get("status")
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def lacks(self, side: str) -> bool:
        """The side's body is a skeleton without its texts, or is not there at all."""
        policy = mapping(self.envelope.get("policy"))
        return any(side in lost for lost in (policy.get("omitted"), policy.get("dropped")) if isinstance(lost, list))


def read(envelope: Mapping) -> Reading:
    """Never raises for the content of a body."""
    reading = Reading(envelope)
    request, response = mapping(envelope.get("request")), reading.response
    asked, answered = bodies.read(request, cut=False), bodies.read(response, cut=response.get("end") != "complete")
    reading.asked = next((each.value for each in asked.documents if isinstance(each.value, dict)), {})
    reading.response_body = answered
    documents = [each.value for each in answered.documents if isinstance(each.value, dict)]
    path = text(request.get("path")) or ""
    operation = text(reading.target.get("operation"))
    reading.family = realtime if answered.socket else families.choose(operation, path, reading.asked, documents)
    if reading.family is not None:
        reading.request = reading.family.ask(reading.asked, path)
        _fold(reading, reading.family)
        if reading.family is not batches:  # its lines name requests
            reading.response_id = next((found for each in documents[:8] if (found := _id(each))), None)
    else:
        _fold_errors(reading, documents)
    if errortype := text(mapping(response.get("headers")).get("x-amzn-errortype")):  # Bedrock's, whose body is a text alone
        reading.answer.fail(errortype.partition(":")[0])
    reading.error = _error(asked, answered)
    return reading


def _fold(reading: Reading, family: Family) -> None:
    body, answer = reading.response_body, reading.answer
    for document in body.documents:
        if isinstance(document.value, dict):
            family.fold(answer, document.value, document.event)
            if reading.content_end is None and answer.generated:
                reading.content_end = document.end
    answer.finished = answer.finished or body.done
    if family is bedrock_invoke:
        bedrock_invoke.fold_headers(answer, mapping(reading.response.get("headers")))


def _id(document: Mapping) -> str | None:
    """OpenAI, Cohere; Anthropic's and the Responses API's first event; Gemini; Cohere v1."""
    inner = mapping(document.get("message") or document.get("response"))
    return short(document.get("id") or inner.get("id") or document.get("responseId") or document.get("response_id"))


def _fold_errors(reading: Reading, documents: list[Mapping]) -> None:
    """Most APIs name an error as OpenAI does, whatever else they say."""
    for document in documents:
        if isinstance(document.get("error"), dict):
            openai_chat.fail(reading.answer, document["error"])


def _error(asked: Body, answered: Body) -> str | None:
    if answered.error:
        return f"response: {answered.error}"
    return f"request: {asked.error}" if asked.error else None
