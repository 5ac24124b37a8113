"""What is wrong with what came out of a spool: told by one who knows the bytes that the disk was given, and what was done to them."""

from collections import Counter
from dataclasses import dataclass, field

import orjson

from proxy.spool import ADMITTED, COMPLETED, GAP, SpoolDamaged, SpoolReader, split_completed
from proxy.spool.frames import HEAD_BYTES
from proxy.spool.writer import Item
from tests.proxy.spool.world import Encoded, World, sequences_of

Frames = Counter[tuple[int, int, bytes]]


@dataclass
class Judgement:
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # bytes, order, counts

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.wrong)


def judge(world: World, *, untouched: bool) -> Judgement:
    """Of a spool that was read to its end. `untouched`: nobody but the writer had his hands on the disk, and it never refused."""
    found = Judgement()
    ever: Frames = Counter()  # whole on disk at some time
    intact: Frames = Counter()  # and never damaged
    for frame, times in Counter(world.encoded).items():
        places = world.places(frame)
        key = (frame.type, frame.sequence, frame.payload)
        ever[key] = len(places)
        intact[key] = sum(not file.is_damaged(start, end) for file, start, end in places)
        if len(places) > times:
            found.doubled.append(f"frame {key[:2]} encoded {times} times is on disk {len(places)} times")
    found.doubled += [f"frame {key} was there, and written again" for key in world.rewritten]
    _judge_frames(world, ever, intact, found)
    _judge_calls(world, ever, intact, found)
    _judge_gaps(world, intact, found)
    _judge_bytes(world, found, untouched=untouched)
    return found


def _judge_frames(world: World, ever: Frames, intact: Frames, found: Judgement) -> None:
    seen = Counter(world.shipper.seen)
    found.lost += [f"frame {key[:2]}" for key in intact if seen[key] < intact[key]]
    found.doubled += [f"frame {key[:2]} read {seen[key]} times" for key in seen if seen[key] > ever[key]]
    found.wrong += [f"frame {key[:2]} was never written" for key in seen if not ever[key]]
    times = Counter(world.encoded)
    order = {(frame.type, frame.sequence, frame.payload): index for index, frame in enumerate(world.encoded) if times[frame] == 1}
    indexes = [order[key] for key in world.shipper.seen if key in order]
    if indexes != sorted(indexes):
        found.wrong.append("frames out of order")


def _judge_calls(world: World, ever: Frames, intact: Frames, found: Judgement) -> None:
    shipper = world.shipper
    stated = set(shipper.stated)
    kept = world.memory_lost if world.memory_lost is not None else len(world.items)
    ended = {item[1]: item for item in world.items if item[0] == COMPLETED}
    accepted = {item[1] for item in world.items[:kept] if item[0] == COMPLETED} | world.queue_dropped
    # Of a record that was written again because its first copy was gone, the shipper may have the first one in mind.
    damaged = {key[1] for key in ever if key[0] == COMPLETED and ever[key] > intact[key]}
    whole = {key[1] for key in intact if key[0] == COMPLETED and intact[key]} - damaged
    damaged |= {number for frame in _damaged_gaps(world, intact) for number in sequences_of(frame.payload)}
    found.lost += [f"record {number}" for number in whole if number not in shipper.payloads]
    found.lost += [f"record {n}, and no gap says so" for n in accepted - whole - stated - damaged - world.unstated - set(shipper.payloads)]
    found.doubled += [f"record {number}: {count} times" for number, count in shipper.delivered.items() if count > 1]
    found.wrong += [f"record {n} has other bytes" for n, payload in shipper.payloads.items() if not _is_of(ended.get(n), payload)]
    found.wrong += [f"record {number} cannot be read" for number in shipper.unreadable & whole]
    marked = {key[1] for key in intact if key[0] == ADMITTED and intact[key]}
    found.lost += [f"call {number}" for number in marked - set(shipper.delivered) - stated - shipper.unreadable]
    found.wrong += [f"call {number} is interrupted" for number in shipper.interrupted if number in whole]


def _judge_gaps(world: World, intact: Frames, found: Judgement) -> None:
    stated = world.shipper.stated
    if world.shipper.gap_counts != stated.total():
        found.wrong.append("the gaps' counts are not those of their sequences")
    if world.deaths:
        return
    written = {key[1] for key in intact if key[0] == COMPLETED and intact[key]}
    found.wrong += [f"record {number} is there, and stated as dropped" for number in written & set(stated)]
    found.doubled += [f"record {number} stated as dropped {count} times" for number, count in stated.items() if count > 1]
    counters = world.counters
    records = sum(frame.type == COMPLETED for frame in world.on_disk_ever())
    dropped = {n for frame in world.on_disk_ever() if frame.type == GAP for n in sequences_of(frame.payload)} - world.queue_dropped
    if (counters.written_records, sum(counters.dropped_records.values())) != (records, len(dropped)):
        found.wrong.append(f"counted {counters}, but {records} records were written and {len(dropped)} dropped")


def _judge_bytes(world: World, found: Judgement, *, untouched: bool) -> None:
    """Each byte is part of a frame that came out, or counted."""
    reader = SpoolReader(world.folder, sealed=True)
    whole = 0
    while frames := reader.read(100, 1 << 20):
        whole += sum(HEAD_BYTES + len(frame.payload) for frame in frames)
    on_disk = sum(len(file.data) for file in world.disk.segments())
    if on_disk != whole + reader.corrupt_bytes:
        found.wrong.append(f"{on_disk} bytes, of which {whole} in frames and {reader.corrupt_bytes} counted")
    if untouched and (reader.corrupt_bytes or world.shipper.corrupt_bytes):
        found.wrong.append(f"{reader.corrupt_bytes} bytes of garbage that nobody put there")


def _damaged_gaps(world: World, intact: Frames) -> list[Encoded]:
    return [f for f in world.on_disk_ever() if f.type == GAP and not intact[f.type, f.sequence, f.payload]]


def _is_of(item: Item | None, payload: bytes) -> bool:
    if item is None:
        return False
    _, _, stated, request, response, _ = item
    try:
        facts, kept_request, kept_response = split_completed(payload)
    except SpoolDamaged:
        return False
    wanted = orjson.loads(stated)
    if (facts, kept_request, kept_response) == (wanted, request, response):
        return True
    sides = [name for name, body in (("request", request), ("response", response)) if body]
    return (facts, kept_request, kept_response) == (wanted | {"policy": {"dropped": sides}}, b"", b"")
