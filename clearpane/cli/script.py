"""The demo's calls, made with the official SDKs: three people at work, and what goes wrong now and then."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import anthropic.resources.messages  # the SDKs load these with the first call: it would look slow
import openai
import openai.resources.chat
import openai.resources.embeddings
import openai.resources.responses

from clearpane.cli.fake.dialects import FAIL_HEADER

# No retries: each step is one call. No proxy of the environment: nothing leaves this machine.
_OPTIONS: dict[str, Any] = {"max_retries": 0, "timeout": 30.0}
_CHUNKS_BEFORE_LEAVING = 5
_HANDBOOK = "Always answer in the traveller's own language, be brief, and never promise what the railway cannot keep. " * 70
_HOUSE_STYLE = "You write travel notes in plain words, one thought to a sentence, no adjectives that sell. " * 12
_CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_WEATHER = {"name": "weather", "description": "the weather of today", "parameters": _CITY}
_ASK_WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris and in Oslo?"}]


@dataclass(frozen=True, slots=True)
class Sdks:
    """Clients whose only change is their `base_url`."""

    openai_sync: openai.OpenAI
    openai_async: openai.AsyncOpenAI
    anthropic_sync: anthropic.Anthropic
    anthropic_async: anthropic.AsyncAnthropic


@dataclass(frozen=True, slots=True)
class Step:
    """One call: what it shows, who makes it, and the call itself."""

    title: str
    user: str
    call: Callable[[Sdks, dict[str, str]], Awaitable[None]]
    headers: dict[str, str]


@asynccontextmanager
async def sdks(proxy_url: str) -> AsyncIterator[Sdks]:
    async with AsyncExitStack() as stack:
        ours: dict[str, Any] = {"base_url": f"{proxy_url}/openai/v1", "api_key": "sk-demo", **_OPTIONS}
        theirs: dict[str, Any] = {"base_url": f"{proxy_url}/anthropic", "api_key": "sk-ant-demo", **_OPTIONS}
        yield Sdks(
            stack.enter_context(openai.OpenAI(**ours, http_client=openai.DefaultHttpxClient(trust_env=False))),
            await stack.enter_async_context(openai.AsyncOpenAI(**ours, http_client=openai.DefaultAsyncHttpxClient(trust_env=False))),
            stack.enter_context(anthropic.Anthropic(**theirs, http_client=anthropic.DefaultHttpxClient(trust_env=False))),
            await stack.enter_async_context(
                anthropic.AsyncAnthropic(**theirs, http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False))
            ),
        )


async def play(clients: Sdks, told: Callable[[str, str, float], None]) -> list[str]:
    """All of it, the people at the same time, each one call after another; `told` of each (user, title, seconds).

    Returns in words what did not go as it should.
    """
    failures: list[str] = []

    async def one(steps: list[Step]) -> None:
        for step in steps:
            begun = time.monotonic()
            try:
                await step.call(clients, step.headers)
            except (openai.OpenAIError, anthropic.AnthropicError) as error:
                failures.append(f"{step.user}, {step.title}: {type(error).__name__}: {error}")
            else:
                told(step.user, step.title, time.monotonic() - begun)

    await asyncio.gather(*map(one, PEOPLE))
    return failures


def _ours(user: str, path: str, **properties: str) -> dict[str, str]:
    named = {f"Clearpane-Property-{name}": value for name, value in properties.items()}
    session = {"Clearpane-Session-Id": f"{user}-trip", "Clearpane-Session-Path": path, "Clearpane-Session-Name": "Trip"}
    return {"Clearpane-User-Id": user, **session, **named}


def _helicones(user: str, path: str, **properties: str) -> dict[str, str]:
    """The same, said in Helicone's words."""
    return {name.replace("Clearpane-", "Helicone-"): value for name, value in _ours(user, path, **properties).items()}


async def _chat(clients: Sdks, headers: dict[str, str]) -> None:
    messages: Any = [{"role": "user", "content": "Where should we go in May, by train, with two children?"}]
    await asyncio.to_thread(clients.openai_sync.chat.completions.create, model="gpt-4o-mini", messages=messages, extra_headers=headers)


async def _chat_stream(clients: Sdks, headers: dict[str, str]) -> None:
    async for _ in await clients.openai_async.chat.completions.create(
        model="gpt-4.1",
        messages=[{"role": "user", "content": "Plan three days in Lisbon for us."}],
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=headers,
    ):
        pass


async def _tools(clients: Sdks, headers: dict[str, str]) -> None:
    tools: Any = [{"type": "function", "function": _WEATHER}]
    await clients.openai_async.chat.completions.create(model="gpt-4.1", messages=_ASK_WEATHER, tools=tools, extra_headers=headers)


async def _tool_results(clients: Sdks, headers: dict[str, str]) -> None:
    calls = [
        {"id": f"call_{index}", "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}}
        for index, city in enumerate(("Paris", "Oslo"))
    ]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "rain, 9 degrees"} for call in calls]
    messages: Any = [*_ASK_WEATHER, {"role": "assistant", "tool_calls": calls}, *results]
    await clients.openai_async.chat.completions.create(model="gpt-4.1", messages=messages, extra_headers=headers)


async def _from_the_cache(clients: Sdks, headers: dict[str, str]) -> None:
    messages: Any = [{"role": "system", "content": _HANDBOOK}, {"role": "user", "content": "May I take my bicycle to Basel?"}]
    await clients.openai_async.chat.completions.create(model="gpt-4o-mini", messages=messages, extra_headers=headers)


async def _response(clients: Sdks, headers: dict[str, str]) -> None:
    text = "Translate: the night train leaves at nine."
    await clients.openai_async.responses.create(model="gpt-4.1-mini", instructions="Into Portuguese.", input=text, extra_headers=headers)


async def _reasoning_stream(clients: Sdks, headers: dict[str, str]) -> None:
    question = "Which of the two routes is cheaper for a family of four?"
    async for _ in await clients.openai_async.responses.create(model="o4-mini", input=question, stream=True, extra_headers=headers):
        pass


async def _embeddings(clients: Sdks, headers: dict[str, str]) -> None:
    texts = ["night trains of Europe", "trams of Lisbon", "hotels beside stations"]
    await asyncio.to_thread(clients.openai_sync.embeddings.create, model="text-embedding-3-small", input=texts, extra_headers=headers)


async def _message(clients: Sdks, headers: dict[str, str]) -> None:
    system: Any = [{"type": "text", "text": _HOUSE_STYLE, "cache_control": {"type": "ephemeral"}}]
    messages: Any = [{"role": "user", "content": "Describe the harbour of Porto."}]
    await asyncio.to_thread(
        clients.anthropic_sync.messages.create,
        model="claude-sonnet-4-6",
        max_tokens=300,
        system=system,
        messages=messages,
        extra_headers=headers,
    )


async def _second_turn(clients: Sdks, headers: dict[str, str]) -> None:
    system: Any = [{"type": "text", "text": _HOUSE_STYLE, "cache_control": {"type": "ephemeral"}}]
    messages: Any = [
        {"role": "user", "content": "Describe the harbour of Porto."},
        {"role": "assistant", "content": "Boats lie in rows. The river is wide and slow."},
        {"role": "user", "content": "Now the old town, shorter."},
    ]
    await clients.anthropic_async.messages.create(
        model="claude-sonnet-4-6", max_tokens=300, system=system, messages=messages, extra_headers=headers
    )


async def _message_stream(clients: Sdks, headers: dict[str, str]) -> None:
    question: Any = [{"role": "user", "content": "Write a postcard from the Douro valley."}]
    async with clients.anthropic_async.messages.stream(
        model="claude-haiku-4-5", max_tokens=300, messages=question, extra_headers=headers
    ) as stream:
        async for _ in stream.text_stream:
            pass


async def _usage_not_stated(clients: Sdks, headers: dict[str, str]) -> None:
    messages: Any = [{"role": "user", "content": "Name one good book for a long journey."}]
    async for _ in await clients.openai_async.chat.completions.create(
        model="gpt-4o-mini", messages=messages, stream=True, extra_headers=headers
    ):
        pass


async def _refused(clients: Sdks, headers: dict[str, str]) -> None:
    messages: Any = [{"role": "user", "content": "Are there still seats to Vienna tonight?"}]
    try:
        await clients.openai_async.chat.completions.create(
            model="gpt-4o-mini", messages=messages, extra_headers={**headers, FAIL_HEADER: "429"}
        )
    except openai.RateLimitError:
        return
    raise openai.OpenAIError("the provider was asked to refuse this call, and it was answered")


async def _left_early(clients: Sdks, headers: dict[str, str]) -> None:
    messages: Any = [{"role": "user", "content": "Tell me everything about the Orient Express, from the start."}]
    options: Any = {"include_usage": True}
    stream = await clients.openai_async.chat.completions.create(
        model="gpt-4.1", messages=messages, stream=True, stream_options=options, extra_headers=headers
    )
    seen = 0
    async with stream:
        async for _ in stream:
            seen += 1
            if seen == _CHUNKS_BEFORE_LEAVING:
                return


PEOPLE = (
    [
        Step("OpenAI   chat", "ada", _chat, _ours("ada", "/plan", Team="travel")),
        Step("OpenAI   chat, streamed", "ada", _chat_stream, _ours("ada", "/plan/lisbon", Team="travel")),
        Step("OpenAI   chat, two tool calls", "ada", _tools, _ours("ada", "/plan/weather", Team="travel")),
        Step("OpenAI   chat, their results", "ada", _tool_results, _ours("ada", "/plan/weather/answer", Team="travel")),
        Step("OpenAI   chat, prompt from cache", "ada", _from_the_cache, _ours("ada", "/tickets", Team="travel")),
    ],
    [
        Step("Anthropic message, into the cache", "bo", _message, _helicones("bo", "/notes", Team="editors")),
        Step("Anthropic message, from the cache", "bo", _second_turn, _helicones("bo", "/notes/2", Team="editors")),
        Step("Anthropic message, streamed", "bo", _message_stream, _helicones("bo", "/postcard", Team="editors")),
        Step("OpenAI   stream without usage", "bo", _usage_not_stated, _ours("bo", "/books", Team="editors")),
    ],
    [
        Step("OpenAI   response", "cy", _response, _ours("cy", "/translate", Team="search", Release="canary")),
        Step("OpenAI   response, reasoning stream", "cy", _reasoning_stream, _ours("cy", "/route", Team="search", Release="canary")),
        Step("OpenAI   embeddings of three texts", "cy", _embeddings, _ours("cy", "/index", Team="search")),
        Step("OpenAI   refused: 429", "cy", _refused, _ours("cy", "/seats", Team="search")),
        Step("OpenAI   stream, left early", "cy", _left_early, _ours("cy", "/history", Team="search")),
    ],
)
CALLS = sum(map(len, PEOPLE))
