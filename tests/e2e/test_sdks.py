"""Promise 1, transparent: the official SDKs get through the proxy, by `base_url` alone, what they get directly."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

START_S = 30.0
STOP_S = 10.0
QUESTION = [{"role": "user", "content": "What is the weather in Paris and in Oslo?"}]
LONG = [{"role": "system", "content": "Answer with care. " * 400}, *QUESTION]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "description": "current weather", "parameters": CITY, "strict": True}}
FLAT_TOOL = {"type": "function", "name": "weather", "description": "current weather", "parameters": CITY, "strict": True}
CLAUDE_TOOL = {"name": "weather", "description": "current weather", "input_schema": CITY}
CACHED = [{"type": "text", "text": "You are brief.", "cache_control": {"type": "ephemeral"}}]


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m ...`, stopped by SIGTERM at the end; by SIGKILL if that takes too long."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    running = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(STOP_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(STOP_S)
        running.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


def wait_until_ready(running: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + START_S
    while running.poll() is None and time.monotonic() < deadline:
        try:
            get(url)
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"not ready at {url} after {START_S} s; exit code {running.poll()}")


@pytest.fixture(scope="module")
def fake() -> Iterator[str]:
    with process("clearpane.cli.fake", "--port", "0", "--pace", "0") as running:
        yield running.stdout.readline().split()[1]


@pytest.fixture(scope="module")
def proxy(fake: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    data = tmp_path_factory.mktemp("proxy")
    upstreams = ("--default-upstream", fake, "--upstream", f"openai={fake}", "--upstream", f"anthropic={fake}")
    command = ("clearpane.cli", "proxy", "--spool-only", "--listen", listen, "--admin", admin, "--data", str(data), *upstreams)
    with process(*command) as running:
        wait_until_ready(running, f"http://{admin}/readyz")
        yield f"http://{listen}"


@dataclass(frozen=True)
class Base:
    """Where the SDKs are pointed to."""

    openai: str
    anthropic: str

    def client(self, **options: Any) -> OpenAI:
        return OpenAI(base_url=self.openai, api_key="sk-test", **{"max_retries": 0, **options})

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.openai, api_key="sk-test", max_retries=0)

    def claude(self, **options: Any) -> Anthropic:
        return Anthropic(base_url=self.anthropic, api_key="sk-ant-test", **{"max_retries": 0, **options})

    def async_claude(self) -> AsyncAnthropic:
        return AsyncAnthropic(base_url=self.anthropic, api_key="sk-ant-test", max_retries=0)


@dataclass(frozen=True)
class Ways:
    """The same provider, with the proxy between and without."""

    ledger: str
    direct: Base
    named: Base
    default: Base


@pytest.fixture(scope="module")
def ways(fake: str, proxy: str) -> Ways:
    return Ways(
        ledger=f"{fake}/_ledger",
        direct=Base(f"{fake}/v1", fake),
        named=Base(f"{proxy}/openai/v1", f"{proxy}/anthropic"),
        default=Base(f"{proxy}/v1", proxy),
    )


def dumped(events: Any) -> list[dict[str, Any]]:
    return [event.model_dump() for event in events]


# Each script makes its calls with the client of one base and returns all that the SDK showed.


def chat(base: Base) -> Any:
    with base.client() as client:
        return client.chat.completions.create(model="gpt-4o-mini", messages=LONG).model_dump()


def chat_of_several_choices(base: Base) -> Any:
    with base.client() as client:
        return client.chat.completions.create(model="gpt-4.1", messages=QUESTION, n=3, max_tokens=7).model_dump()


def chat_stream(base: Base) -> Any:
    with base.client() as client:
        return dumped(client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=True))


def chat_stream_with_usage(base: Base) -> Any:
    options = {"include_usage": True}
    with base.client() as client:
        return dumped(client.chat.completions.create(model="o4-mini", messages=LONG, stream=True, stream_options=options))


def chat_stream_helper(base: Base) -> Any:
    with base.client() as client, client.chat.completions.stream(model="gpt-4o-mini", messages=QUESTION, tools=[TOOL]) as stream:
        return [*dumped(stream), stream.get_final_completion().model_dump()]


def chat_tools(base: Base) -> Any:
    with base.client() as client:
        first = client.chat.completions.create(model="gpt-4.1", messages=QUESTION, tools=[TOOL]).choices[0].message
        answers = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in first.tool_calls]
        turns = [*QUESTION, first.model_dump(exclude_none=True), *answers]
        second = client.chat.completions.create(model="gpt-4.1", messages=turns, tools=[TOOL])
        return [first.model_dump(), second.model_dump()]


class City(BaseModel):
    city: str


def chat_parsed(base: Base) -> Any:
    with base.client() as client:
        answer = client.chat.completions.parse(model="gpt-4o-mini", messages=QUESTION, response_format=City)
        return [answer.model_dump(warnings=False), answer.choices[0].message.parsed.city]


def completion(base: Base) -> Any:
    with base.client() as client:
        return client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once upon a time").model_dump()


def completion_stream(base: Base) -> Any:
    with base.client() as client:
        return dumped(client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once upon a time", stream=True))


def response(base: Base) -> Any:
    with base.client() as client:
        answer = client.responses.create(model="o4-mini", input="one two three", instructions="Be brief.")
        return [answer.model_dump(), answer.output_text]


def response_stream(base: Base) -> Any:
    with base.client() as client:
        return dumped(client.responses.create(model="gpt-4.1", input="one two three", stream=True))


def response_stream_helper(base: Base) -> Any:
    with base.client() as client, client.responses.stream(model="gpt-5-mini", input=QUESTION, tools=[FLAT_TOOL]) as stream:
        return [*dumped(stream), stream.get_final_response().model_dump()]


def embeddings(base: Base) -> Any:
    with base.client() as client:
        return client.embeddings.create(model="text-embedding-3-small", input=["one two", "three"]).model_dump()


def embeddings_as_numbers(base: Base) -> Any:
    with base.client() as client:
        return client.embeddings.create(model="text-embedding-3-small", input="one", dimensions=64, encoding_format="float").model_dump()


def models(base: Base) -> Any:
    with base.client() as client:
        return [*dumped(client.models.list()), client.models.retrieve("gpt-4.1").model_dump()]


def raw_answer(base: Base) -> Any:
    with base.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=LONG)
        own = ("x-request-id", "openai-processing-ms", "x-ratelimit-limit-requests", "content-type", "content-encoding")
        return [raw.status_code, raw.text, raw.parse()._request_id, [raw.headers.get(name) for name in own]]


def in_parallel(base: Base) -> Any:
    async def one(client: AsyncOpenAI, number: int) -> Any:
        messages = [{"role": "user", "content": f"question {number}"}]
        return (await client.chat.completions.create(model="gpt-4o-mini", messages=messages)).model_dump()

    async def all_of_them() -> Any:
        async with base.async_client() as client:
            return await asyncio.gather(*(one(client, number) for number in range(20)))

    return asyncio.run(all_of_them())


def async_streams(base: Base) -> Any:
    async def run() -> Any:
        async with base.async_client() as client:
            chunks = await client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=True)
            seen = [chunk.model_dump() async for chunk in chunks]
            events = await client.responses.create(model="o4-mini", input="one two", stream=True)
            return seen + [event.model_dump() async for event in events]

    return asyncio.run(run())


def message(base: Base) -> Any:
    with base.claude() as client:
        return client.messages.create(model="claude-sonnet-4-6", max_tokens=200, system=CACHED, messages=QUESTION).model_dump()


def message_turns(base: Base) -> Any:
    with base.claude() as client:
        first = client.messages.create(model="claude-haiku-4-5", max_tokens=200, messages=QUESTION, tools=[CLAUDE_TOOL])
        results = [{"type": "tool_result", "tool_use_id": part.id, "content": "rain"} for part in first.content if part.type == "tool_use"]
        turns = [*QUESTION, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
        second = client.messages.create(model="claude-haiku-4-5", max_tokens=200, system=CACHED, messages=turns, tools=[CLAUDE_TOOL])
        return [first.model_dump(), second.model_dump()]


def message_stream(base: Base) -> Any:
    with base.claude() as client:
        return dumped(client.messages.create(model="claude-sonnet-4-6", max_tokens=9, messages=QUESTION, stream=True))


def message_stream_helper(base: Base) -> Any:
    arguments: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 200, "messages": QUESTION, "tools": [CLAUDE_TOOL]}
    with base.claude() as client, client.messages.stream(**arguments) as stream:
        return [*dumped(stream), stream.get_final_message().model_dump()]


def async_messages(base: Base) -> Any:
    async def run() -> Any:
        async with base.async_claude() as client:
            whole = await client.messages.create(model="claude-haiku-4-5", max_tokens=200, messages=QUESTION)
            events = await client.messages.create(model="claude-haiku-4-5", max_tokens=200, messages=QUESTION, stream=True)
            return [whole.model_dump(), *[event.model_dump() async for event in events]]

    return asyncio.run(run())


SCRIPTS = [
    chat,
    chat_of_several_choices,
    chat_stream,
    chat_stream_with_usage,
    chat_stream_helper,
    chat_tools,
    chat_parsed,
    completion,
    completion_stream,
    response,
    response_stream,
    response_stream_helper,
    embeddings,
    embeddings_as_numbers,
    models,
    raw_answer,
    in_parallel,
    async_streams,
    message,
    message_turns,
    message_stream,
    message_stream_helper,
    async_messages,
]


class Account:
    """What the provider saw since the last look."""

    def __init__(self, url: str) -> None:
        self._url, self._seen = url, len(self._entries(url))

    @staticmethod
    def _entries(url: str) -> list[dict[str, Any]]:
        return json.loads(get(url))

    def since(self, expected: int | None = None) -> list[dict[str, Any]]:
        """A stream is entered a moment after its last byte: waits for the expected number."""
        deadline = time.monotonic() + 5
        while len(found := self._entries(self._url)[self._seen :]) < (expected or 0) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._seen += len(found)
        return sorted(found, key=lambda entry: entry["request_sha256"])


@pytest.mark.parametrize("way", ["named", "default"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_an_sdk_gets_the_same_through_the_proxy(ways: Ways, script: Callable[[Base], Any], way: str) -> None:
    account = Account(ways.ledger)
    direct = script(ways.direct)
    asked = account.since()
    assert direct
    assert script(getattr(ways, way)) == direct
    assert account.since(len(asked)) == asked, "the provider was asked something else"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, None),
        (529, None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_error_keeps_its_class_body_and_headers(ways: Ways, status: int, kind: str | None, streamed: bool) -> None:
    headers = {"Fake-Status": str(status)}

    def refused(base: Base) -> Any:
        with base.client() as client, pytest.raises(openai.APIStatusError) as ours:
            client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, stream=streamed, extra_headers=headers)
        with base.claude() as client, pytest.raises(anthropic.APIStatusError) as theirs:
            client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=QUESTION, stream=streamed, extra_headers=headers)
        return [
            (type(error).__name__, error.status_code, str(error), error.body, error.request_id, error.response.headers.get("retry-after"))
            for error in (ours.value, theirs.value)
        ]

    direct = refused(ways.direct)
    assert [error[1] for error in direct] == [status, status]
    assert kind is None or [error[0] for error in direct] == [kind, kind]
    assert refused(ways.named) == direct
    assert refused(ways.default) == direct


def test_a_wrong_key_is_the_providers_to_refuse(ways: Ways) -> None:
    def refused(base: Base) -> Any:
        with OpenAI(base_url=base.openai, api_key="wrong", max_retries=0) as client, pytest.raises(openai.AuthenticationError) as error:
            client.models.list()
        return error.value.body, error.value.request_id

    assert refused(ways.named) == refused(ways.direct)


def test_retries_are_the_sdks_own(ways: Ways) -> None:
    """Two retries of the SDK are three calls of the provider: the proxy adds none and hides none."""
    account = Account(ways.ledger)
    headers = {"Fake-Status": "429"}
    with ways.named.client(max_retries=2) as client, pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, extra_headers=headers)
    assert [entry["status"] for entry in account.since(3)] == [429, 429, 429]


def test_control_headers_stay_with_the_proxy(ways: Ways) -> None:
    headers = {"Clearpane-User-Id": "ada", "Helicone-Session-Id": "s-1", "Clearpane-Property-Team": "search"}
    with ways.direct.client() as client:
        direct = client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION).model_dump()
    with ways.named.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=QUESTION, extra_headers=headers)
    assert raw.parse().model_dump() == direct
    assert raw.headers.get("clearpane-id")
    assert raw.headers.get("clearpane-ignored") is None
