"""What is wrong with a lake: told by one who knows what went into the log, and nothing of the code that wrote the lake."""

import gzip
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from clearpane.contract import lake as layout
from clearpane.contract import members
from consumer.lake.messages import Message


@dataclass
class Judgement:
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    chain: list[str] = field(default_factory=list)


def judge(objects: dict[str, bytes], messages: list[Message], genesis: int, *, indexed: bool = True) -> Judgement:
    """`messages`: all that must be in the lake. `indexed`: each object has to have its index, too."""
    found = Judgement()
    ids: Counter[str | None] = Counter()
    offsets: Counter[int] = Counter()
    end, previous = genesis, None
    for key in sorted((k for k in objects if k.startswith("calls/")), key=lambda k: k.rpartition("-")[2]):
        manifest, _ = members.unseal(objects[key])
        if (manifest.start, manifest.previous_sha256) != (end, previous):
            found.chain.append(f"{key} does not follow {end}")
        end, previous = manifest.end, manifest.sha256
        records = [orjson.loads(line) for line in gzip.decompress(objects[key]).splitlines()]
        ids.update(record["request_id"] for record in records)
        offsets.update(record["lake"]["offset"] for record in records)
        parsed = layout.parse_key(key)
        assert parsed is not None
        if indexed and parsed[1].key("index") not in objects:
            found.chain.append(f"{key} has no index")
    wanted = Counter({name: 1 for message in messages if (name := _call(message)) is not None})
    wanted[None] = sum(message.value == b"poison" for message in messages)  # type: ignore[index]
    found.lost += [f"{name}: {ids[name]} of {count}" for name, count in wanted.items() if ids[name] < count]
    found.doubled += [f"{name}: {count} times" for name, count in ids.items() if count > wanted[name]]  # type: ignore[index]
    found.doubled += [f"offset {offset}: {count} times" for offset, count in offsets.items() if count > 1]
    return found


def _call(message: Message) -> str | None:
    envelope: dict[str, Any] | None = None if message.value == b"poison" else orjson.loads(message.value)
    return envelope["request_id"] if envelope and envelope["event"] == "completed" else None
