"""Calls made with the official SDKs. Each script takes a base and returns all that the SDK showed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

QUESTION = [{"role": "user", "content": "What is the weather in Paris and in Oslo?"}]
LONG = [{"role": "system", "content": "Answer with care. " * 400}, *QUESTION]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "description": "current weather", "parameters": CITY, "strict": True}}
FLAT_TOOL = {"type": "function", "name": "weather", "description": "current weather", "parameters": CITY, "strict": True}
CLAUDE_TOOL = {"name": "weather", "description": "current weather", "input_schema": CITY}
CACHED = [{"type": "text", "text": "You are brief.", "cache_control": {"type": "ephemeral"}}]


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


def dumped(events: Any) -> list[dict[str, Any]]:
    return [event.model_dump() for event in events]


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


SCRIPTS: list[Callable[[Base], Any]] = [
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
