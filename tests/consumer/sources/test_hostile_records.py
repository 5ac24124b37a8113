"""Promises 2 and 3, on a real broker: an answer that nobody can read is a record without a cost, and the offsets behind it go on."""

import base64
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from clearpane.contract.identifiers import new_request_id, partition_of
from consumer.derive import derive, prepare, row
from consumer.lake.draft import Derivation
from tests.consumer.sources.test_kafka import PARTITIONS, Bench

pytestmark = pytest.mark.kafka

Make = Callable[..., dict[str, Any]]
BOMB = b'{"choices": [], "usage": {"prompt_tokens": 1}, "x": "' + b" " * (48 << 20)
# What is wrong with the answer -> its bytes, and their coding.
UNREADABLE: dict[str, tuple[bytes, str | None]] = {
    "bomb, gzip": (gzip.compress(BOMB), "gzip"),
    "bomb, deflate": (zlib.compress(BOMB), "deflate"),
    "garbage": (bytes(range(256)) * 8, None),
    "depth": (b"[" * 100_000, None),
    "depth in an event": (b"data: " + b"[" * 100_000 + b"\n\n", None),
    "1e400": (b'{"choices": [], "usage": {"prompt_tokens": 1e400}}', None),
    "not a count": (b'{"choices": [], "usage": {"prompt_tokens": -1}}', None),
}
CHOICE = b'{"model": "gpt-4o", "choices": [{"message": {"content": "\\ud83d"}, "finish_reason": "stop"}], "usage": '
READABLE: dict[str, tuple[bytes, int]] = {
    "lone surrogates": (CHOICE + b'{"prompt_tokens": 2, "completion_tokens": 1}}', 3),
    "duplicate keys": (CHOICE + b'{"prompt_tokens": 2, "completion_tokens": 1, "prompt_tokens": 5}}', 6),
}


@pytest.fixture
async def bench(kafka_bootstrap: str, kafka_topic: str, tmp_path: Path) -> AsyncIterator[Bench]:
    book = prepare()
    found = Bench(kafka_bootstrap, kafka_topic, tmp_path / "lake", Derivation(derive=lambda envelope: derive(envelope, book), row=row))
    yield found
    for task in list(found.tasks):
        await found.stop(task)


def answered(envelope: Make, body: bytes, coding: str | None = None) -> dict[str, Any]:
    """All in one partition, so that one behind another is behind it in the log."""
    made = envelope(request_id=next(found for _ in range(1000) if partition_of(found := new_request_id(), PARTITIONS) == 0))
    made["response"] |= {"body": base64.b64encode(body).decode(), "body_encoding": "base64", "content_encoding": coding}
    return made


async def test_what_cannot_be_read_is_a_record_without_a_cost_and_stops_no_offset(bench: Bench, envelope: Make) -> None:
    names = [*UNREADABLE, *READABLE]
    bodies = [*UNREADABLE.values(), *((body, None) for body, _ in READABLE.values())]
    sent = [answered(envelope, body, coding) for body, coding in bodies]
    bench.start()
    await bench.calls(sent)
    await bench.until(len(sent))
    records = {record["request_id"]: record for record in bench.records()}
    found = {name: records[each["request_id"]] for name, each in zip(names, sent, strict=True)}
    assert sorted(record["lake"]["offset"] for record in found.values()) == list(range(len(sent)))
    for name in UNREADABLE:
        derived = found[name]["derived"]
        assert derived["parse_error"], name
        assert (derived["cost"]["total"], derived["usage"]["total_tokens"]) == (None, None), name
        assert derived["cost"]["reason"], name
    for name, (_, tokens) in READABLE.items():
        derived = found[name]["derived"]
        assert (derived["parse_error"], derived["usage"]["total_tokens"]) == (None, tokens), name
        assert derived["cost"]["source"] == "book", name
