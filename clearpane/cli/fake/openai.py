"""OpenAI's completions, embeddings, models and errors."""

import base64
import random
import struct
from collections.abc import Iterator

from clearpane.cli.fake import prose
from clearpane.cli.fake.answer import CREATED, DONE, Answer, Asked, Frame, Json, data
from clearpane.cli.fake.models import CATALOGUE, Model, Tokens, find
from clearpane.cli.fake.refusal import Refusal

_DIMENSIONS = 1536


def completion(asked: Asked) -> Answer:
    asked.need("model", "prompt")
    model = find(asked.body["model"], "openai")
    text, cut = prose.answer(prose.last_text(asked.body["prompt"]), asked.body.get("max_tokens", 16))
    tokens = model.count(prose.words(asked.body["prompt"]), prose.count(text))
    usage = {"prompt_tokens": tokens.prompt, "completion_tokens": tokens.completion, "total_tokens": tokens.prompt + tokens.completion}
    head: Json = {"id": asked.id("cmpl-"), "object": "text_completion", "created": CREATED, "model": model.snapshot}
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": "length" if cut else "stop"}
    stated = usage if asked.states_usage else None
    frames = tuple(_frames(head, choice, stated)) if asked.streamed else ()
    body = {**head, "choices": [choice], "usage": usage}
    return Answer(id=head["id"], model=model, tokens=tokens, usage=stated, body=body, frames=frames)


def embeddings(asked: Asked) -> Answer:
    asked.need("model", "input")
    model = find(asked.body["model"], "openai")
    inputs = asked.body["input"] if isinstance(asked.body["input"], list) else [asked.body["input"]]
    if all(isinstance(item, int) for item in inputs):
        inputs = [inputs]
    tokens = Tokens(input=sum(prose.count(item) if isinstance(item, str) else len(item) for item in inputs))
    dimensions = asked.body.get("dimensions") or _DIMENSIONS
    if not 0 < dimensions <= _DIMENSIONS:
        raise Refusal(400, f"'dimensions' must lie between 1 and {_DIMENSIONS}.", param="dimensions")
    packed = asked.body.get("encoding_format") == "base64"
    vectors = [
        {"object": "embedding", "index": index, "embedding": _vector(str(item), dimensions, packed)} for index, item in enumerate(inputs)
    ]
    usage = {"prompt_tokens": tokens.input, "total_tokens": tokens.input}
    body = {"object": "list", "data": vectors, "model": model.snapshot, "usage": usage}
    return Answer(id=asked.id("embd-"), model=model, tokens=tokens, usage=usage, body=body)


def models() -> Json:
    own = [model for model in CATALOGUE if model.maker == "openai"]
    return {"object": "list", "data": [_model(model) for model in own]}


def model(name: str) -> Json:
    return _model(find(name, "openai"))


def error(refusal: Refusal, request_id: str) -> Json:
    kind = {429: "requests", 500: "server_error", 503: "server_error"}.get(refusal.status, "invalid_request_error")
    code = refusal.code or {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(refusal.status)
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}}


def _frames(head: Json, choice: Json, stated: Json | None) -> Iterator[Frame]:
    rest: Json = {"usage": None} if stated is not None else {}
    for piece in prose.pieces(choice["text"]):
        yield data({**head, "choices": [{**choice, "text": piece, "finish_reason": None}], **rest}, token=True)
    yield data({**head, "choices": [{**choice, "text": ""}], **rest})
    if stated is not None:
        yield data({**head, "choices": [], "usage": stated})
    yield DONE


def _vector(text: str, dimensions: int, packed: bool) -> list[float] | str:
    numbers = random.Random(text)  # noqa: S311 -- repeatable is the point
    floats = [round(numbers.uniform(-0.05, 0.05), 6) for _ in range(dimensions)]
    return base64.b64encode(struct.pack(f"<{dimensions}f", *floats)).decode() if packed else floats


def _model(model: Model) -> Json:
    return {"id": model.name, "object": "model", "created": CREATED, "owned_by": "system"}
