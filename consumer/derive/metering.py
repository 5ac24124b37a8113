"""Usage of a call: stated by the provider, else estimated, else unknown with a reason. Never 0 by silence."""

from dataclasses import dataclass, replace

from consumer.derive import estimate
from consumer.derive.estimate import Estimate
from consumer.derive.families import Family, batches, embeddings, realtime, silence
from consumer.derive.reading import Reading
from consumer.derive.untrusted import Malformed
from consumer.derive.usage import ALL, Leaves


@dataclass(frozen=True, slots=True)
class Metered:
    leaves: Leaves | None
    source: str  # provider, estimated, unknown
    method: str | None = None  # how it was estimated; of a statement, what it leaves out
    reason: str | None = None  # why it is unknown
    error: str | None = None  # the provider's block could not be read


def meter(reading: Reading) -> Metered:
    if reason := _not_metered(reading):
        return Metered(None, "unknown", reason=reason)
    family = reading.family
    assert family is not None  # _not_metered said so
    try:
        stated = family.leaves(reading.answer.stated) if reading.answer.stated else None
    except Malformed as error:
        return Metered(None, "unknown", reason="the stated usage cannot be read", error=str(error))
    whole = reading.answer.finished or not (reading.response_body.streamed or reading.response_body.cut)
    if stated is not None and _in_part(reading):
        return _of_part(stated, 1.0 if family is realtime else _scale(reading))
    if stated is not None and whole:
        return Metered(stated, "provider", method=reading.answer.remark)
    if stated is None and (reason := silence(family)):
        return Metered(None, "unknown", reason=reason)
    return _completed(reading, family, stated)


def _not_metered(reading: Reading) -> str | None:
    envelope_request, status = reading.envelope.get("request"), reading.status
    method = envelope_request.get("method") if isinstance(envelope_request, dict) else None
    if method not in ("POST", None) and not reading.answer.deferred and reading.family is not realtime:
        return f"a {method} generates nothing"  # a stored answer fetched again was billed when it was made
    if status is None or not (reading.response_body.data or reading.answer.stated or reading.lacks("response")):
        return "no answer was recorded"
    if status >= 400 and not reading.answer.stated:
        return "error answer"
    if reading.answer.deferred and not reading.answer.finished:
        return "made in the background: the request that fetches it whole states its usage"
    embedded = reading.family is embeddings and reading.response_body.cut  # large, and its usage comes last
    if reading.family is None or not (reading.answer.understood or embedded):
        return (reading.family and silence(reading.family)) or "the answer states no usage that is understood"
    return None


def _completed(reading: Reading, family: Family, stated: Leaves | None) -> Metered:
    """No usage, or that of a stream which was cut: what was stated is exact for its part, the rest is counted."""
    if stated is None and not (reading.answer.finished or reading.answer.generated or reading.response_body.cut):
        return Metered(None, "unknown", reason="nothing was generated yet")
    if stated is None and reading.lacks("request"):
        return Metered(None, "unknown", reason="no usage stated, and the request's body is not kept")
    if reading.lacks("response"):
        return Metered(None, "unknown", reason="no usage stated, and the answer's body is not kept")
    if stated is None and not reading.asked:
        return Metered(None, "unknown", reason="no usage stated, and the request cannot be read")
    model = reading.answer.model or reading.request.model
    if family is embeddings:
        given = estimate.of_prompt(family.prompt(reading.asked), model, reading.asked)
        return Metered(Leaves(input_tokens=given.tokens), "estimated", method=given.method)
    made = estimate.of_answer(reading.answer, model, scale=_scale(reading))
    if stated is not None:
        return _extended(stated, made)
    given = estimate.of_prompt(family.prompt(reading.asked), model, reading.asked)
    method = given.method if given.method == made.method else f"input {given.method}; output {made.method}"
    return Metered(Leaves(input_tokens=given.tokens, output_tokens=made.tokens), "estimated", method=method)


def _extended(stated: Leaves, made: Estimate) -> Metered:
    """A cut stream's running count is a lower bound (Anthropic's first one is a placeholder): what arrived may be more."""
    if stated.total_output >= made.tokens:
        return Metered(stated, "estimated", method="input stated; output the running count of a cut stream")
    more = made.tokens - stated.total_output
    leaves = replace(stated, output_tokens=stated.output_tokens + more)
    return Metered(leaves, "estimated", method=f"input stated; output {made.method}")


def _in_part(reading: Reading) -> bool:
    """Several statements, of which the record holds only the first. A session's end is no cut of it."""
    if reading.family is realtime:
        return reading.response.get("truncated") is True
    return reading.family is batches and reading.response_body.cut


def _of_part(stated: Leaves, scale: float) -> Metered:
    leaves = Leaves(**{name: round(getattr(stated, name) * scale) for name in ALL})
    return Metered(leaves, "estimated", method="the sum of the part that is kept" + ("; scaled to the whole's bytes" if scale > 1 else ""))


def _scale(reading: Reading) -> float:
    """Above 1 where the record holds only the first bytes of the answer."""
    kept, whole = len(reading.response_body.data), reading.response.get("body_bytes")
    if reading.response.get("truncated") is not True or reading.response.get("content_encoding") or not isinstance(whole, int):
        return 1.0
    return min(max(whole / kept, 1.0), 1e6) if kept else 1.0
