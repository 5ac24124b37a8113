"""Derivation: records per second of one core's time, by form and size of the answer.

    python bench/derive.py [--seconds 2] [--profile]

The envelopes are made here; parsing the envelope itself and writing the record are counted too, as the consumer does them.
"""

import argparse
import cProfile
import gc
import io
import json
import os
import platform
import pstats
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import orjson

from consumer.derive import PriceBook, derive, row

PROFILE_LINES = 12
SENTENCE = "the proxy keeps one complete record of every call and what it cost, in decimals, with its source. "
WORDS = SENTENCE.split(" ")
USAGE = {"prompt_tokens": 900, "completion_tokens": 800, "total_tokens": 1700, "prompt_tokens_details": {"cached_tokens": 512}}


def text_of(size: int) -> str:
    line = " ".join(WORDS)
    return (line * (size // len(line) + 1))[:size]


def plain(size: int) -> str:
    message = {"role": "assistant", "content": text_of(size - 300)}
    return json.dumps(
        {
            "object": "chat.completion",
            "model": "gpt-4o",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": USAGE,
        }
    )


def chunk(**more: Any) -> str:
    head = {"id": "chatcmpl-9fLs0aBcDeFgHiJkLmNoPqRsTuVw", "object": "chat.completion.chunk", "created": 1763600000, "model": "gpt-4o"}
    return f"data: {json.dumps({**head, 'system_fingerprint': 'fp_44709d6fcb', **more})}\n\n"


def stream(size: int, *, usage: bool = True) -> str:
    pieces: list[str] = []
    length, at = 600, 0
    while length < size:
        pieces.append(
            chunk(choices=[{"index": 0, "delta": {"content": WORDS[at % len(WORDS)] + " "}, "logprobs": None, "finish_reason": None}])
        )
        length += len(pieces[-1])
        at += 1
    pieces.append(chunk(choices=[{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]))
    return "".join(pieces) + (chunk(choices=[], usage=USAGE) if usage else "") + "data: [DONE]\n\n"


def anthropic_stream(size: int) -> str:
    start = {"type": "message", "model": "claude-sonnet-4-5-20250929", "usage": {"input_tokens": 900, "output_tokens": 1}}
    pieces: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    length, at = 600, 0
    while length < size:
        pieces.append({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORDS[at % len(WORDS)] + " "}})
        length += len(json.dumps(pieces[-1])) + 38
        at += 1
    pieces.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 800}})
    return "".join(f"event: {piece['type']}\ndata: {json.dumps(piece)}\n\n" for piece in pieces)


def envelope(body: str, provider: str, operation: str) -> bytes:
    request = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text_of(1024)}], "temperature": 0.2})
    side: dict[str, Any] = {"headers": {}, "body_encoding": "utf-8", "content_encoding": None, "truncated": False}
    return orjson.dumps(
        {
            "request_id": "0199a1b2-c3d4-7e5f-8091-a2b3c4d5e6f7",
            "target": {"provider": provider, "upstream": provider, "operation": operation, "url": None},
            "request": {"method": "POST", "path": "/v1/chat/completions", "body": request, **side},
            "response": {"status": 200, "end": "complete", "streamed": None, "error": None, "body": body, **side},
            "timing": {
                "received_at": "2026-11-20T10:00:00.000000+00:00",
                "chunk_marks": [[10.0, 100], [20.0, 1000]],
                "last_byte_ms": 900.0,
            },
            "policy": {"omitted": [], "dropped": []},
        }
    )


FORMS: dict[str, Callable[[int], bytes]] = {
    "JSON, chat": lambda size: envelope(plain(size), "openai", "chat"),
    "SSE, chat": lambda size: envelope(stream(size), "openai", "chat"),
    "SSE, messages": lambda size: envelope(anthropic_stream(size), "anthropic", "messages"),
    "SSE, chat, no usage (counted)": lambda size: envelope(stream(size, usage=False), "openai", "chat"),
}


def rate(message: bytes, book: PriceBook, seconds: float) -> float:
    """Records per second of processor time, after one that loads what is loaded once."""
    done, started = -1, time.process_time()
    while (now := time.process_time()) - started < seconds or done < 1:
        if done < 0:
            started = now
        one(message, book)
        done += 1
        if done == 0:
            started = time.process_time()
    return done / (time.process_time() - started)


def one(message: bytes, book: PriceBook) -> None:
    record = orjson.loads(message)
    record["derived"] = derive(record, book)
    row(record)
    orjson.dumps(record)


def profile(message: bytes, book: PriceBook, seconds: float) -> str:
    """Where the time goes: the functions with the largest share of their own."""
    profiler, ends = cProfile.Profile(), time.process_time() + seconds
    while time.process_time() < ends:
        profiler.runcall(one, message, book)
    out = io.StringIO()
    pstats.Stats(profiler, stream=out).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
    return out.getvalue().partition("ncalls")[2].rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="time per figure")
    parser.add_argument("--profile", action="store_true", help="where the time goes, for each answer of 32 KB")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    book = PriceBook()
    gc.freeze()  # as the consumer does
    print(f"per second of one core's time; Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'answer':32}{'4 KB':>9}{'32 KB':>9}{'256 KB':>9}")
    for name, form in FORMS.items():
        print(f"{name:32}" + "".join(f"{rate(form(size << 10), book, seconds):>9,.0f}" for size in (4, 32, 256)), flush=True)
    for name, form in FORMS.items() if arguments.profile else ():
        print(f"\n{name}, 32 KB\n   ncalls{profile(form(32 << 10), book, seconds)}", flush=True)


if __name__ == "__main__":
    main()
