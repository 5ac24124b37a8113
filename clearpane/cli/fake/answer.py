"""What a dialect is asked, and what it hands to the server."""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from clearpane.cli.fake.models import Model, Tokens
from clearpane.cli.fake.refusal import Refusal

# A fixed moment: answers must not differ from one run to the next.
CREATED = 1_763_700_000
FINGERPRINT = "fp_fake0001"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """One SSE event as it goes on the wire."""

    data: bytes
    token: bool = False  # the model is seen to work before it


DONE = Frame(b"data: [DONE]\n\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    id: str
    model: Model
    tokens: Tokens
    usage: Json | None  # as the caller gets to see it; None: not stated
    body: Json
    frames: tuple[Frame, ...] = ()  # of a streamed answer, instead of `body`


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, parsed."""

    body: Json
    seed: str  # hexadecimal; the same for the same path and body

    @property
    def streamed(self) -> bool:
        return self.body.get("stream") is True

    @property
    def states_usage(self) -> bool:
        """OpenAI states the usage of a stream only when asked to."""
        return not self.streamed or bool((self.body.get("stream_options") or {}).get("include_usage"))

    def id(self, prefix: str, salt: str = "") -> str:
        return prefix + hashlib.sha256((self.seed + salt).encode()).hexdigest()[:24]

    def need(self, *names: str) -> None:
        for name in names:
            if not self.body.get(name):
                raise Refusal(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def ask(path: str, raw: bytes) -> Asked:
    """Raises Refusal (400) for a body that is not a JSON object."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "We could not parse the JSON body of your request.")
    return Asked(body, hashlib.sha256(path.encode() + b"\n" + raw).hexdigest())


def data(event: Json, *, token: bool = False) -> Frame:
    """An SSE event without a name."""
    return Frame(b"data: " + orjson.dumps(event) + b"\n\n", token)


def named(event: Json, *, token: bool = False) -> Frame:
    """An SSE event whose name is its `type`."""
    return Frame(b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n", token)
