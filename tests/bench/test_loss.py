"""What the comparison of losses counts: calls by their prompts, in either gateway's objects."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import loss
from bench.gateways import Bucket, Calls, LiteLLM
from bench.loss import Loss, table
from clearpane.store import Store
from tests.e2e.system import Outcome


def theirs(number: int) -> dict[str, Any]:
    return {"id": "x", "messages": [{"role": "user", "content": f"call-{number}"}], "response": {"text": "call-77"}}


def ours(number: int) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": f"call-{number}"}]}
    return {"client_request_id": f"call-{number}", "request": {"body": json.dumps(body)}}


def lines(*records: dict[str, Any]) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


async def test_a_call_counts_once_for_each_record(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    await store.put("2026-11-21/time_1.json", lines(theirs(1)))
    await store.put("2026-11-21/batch.jsonl", lines(theirs(2), theirs(1)))
    await store.put("calls/a.jsonl.gz", gzip.compress(b'{"clearpane":"calls.v1"}\n') + gzip.compress(lines(ours(3))))
    bucket = Bucket(str(tmp_path))
    await bucket.refresh("")
    await bucket.refresh("")
    assert bucket.calls == {"call-1": 2, "call-2": 1, "call-3": 1}


async def test_what_is_no_call_of_the_load_is_not_counted(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    others = [
        {"messages": None},
        {"messages": [{"content": "ready?"}]},
        {"messages": [{"content": [{"text": "call-1"}]}]},
        {"request": {"body": None}},
    ]
    await store.put("a.jsonl", lines(*others))
    bucket = Bucket(str(tmp_path))
    await bucket.refresh("")
    assert not bucket.calls


def test_a_gateway_that_never_came_to_start_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.gateways.install.version", lambda name: "1")
    monkeypatch.setattr("bench.gateways.install.folder", lambda name: tmp_path)
    LiteLLM(tmp_path, "s3://bucket/lake", "http://127.0.0.1:1", flush_s=1, one_file=True).stop()


class Slow:
    """One more call in its bucket each time that it is asked, up to `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, 0

    async def recorded(self) -> Counter[str]:
        self.asked = min(self.asked + 1, self.most)
        return Counter({f"call-{number}": 1 for number in range(self.asked)})


@pytest.mark.parametrize(("most", "found"), [(3, 3), (2, 2)])
async def test_it_waits_until_all_is_there_or_nothing_more_comes(monkeypatch: pytest.MonkeyPatch, most: int, found: int) -> None:
    monkeypatch.setattr(loss, "SILENCE_S", 0.05)
    monkeypatch.setattr(loss, "POLL_S", 0.01)
    assert len(await loss._settled(Slow(most), ["call-0", "call-1", "call-2"])) == found  # type: ignore[arg-type]


def test_only_calls_that_their_caller_saw_whole_can_be_lost() -> None:
    outcomes = {"a": Outcome(200, True, 0.1, 1.0), "b": Outcome(200, False, 0.1, 1.0), "c": Outcome(500, True, 0.1, 1.0)}
    assert loss.answered(outcomes) == ["a"]


def test_the_table_says_what_was_left_out() -> None:
    text = table([Loss("LiteLLM 1", "flush every 1 s", "S3 down", 1234, 5, 0)], {"portkey": "no Node.js"})
    assert "| S3 down | LiteLLM 1 | flush every 1 s | 1,234 | 5 | 0 |" in text
    assert text.endswith("portkey is left out: no Node.js.")


def test_the_prompt_names_the_call() -> None:
    path, body = Calls(port=1, calls=1).request(6)
    assert (path, body["stream"], body["messages"]) == ("/v1/chat/completions", True, [{"role": "user", "content": "call-6"}])
