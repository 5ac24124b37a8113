"""The index: exact columns and types, pointers that open records, and the same from the object alone."""

import io
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane.contract import members
from clearpane.contract.members import NotAnObject
from clearpane.contract.records import COLUMNS
from consumer.lake import index
from consumer.lake.draft import Derivation, Draft, compose
from consumer.lake.messages import Message, decode
from consumer.lake.pending import Limits, Pending
from consumer.lake.tail import Tail

Make = Callable[..., dict[str, Any]]
MOMENT_MS = 1_795_228_200_000


def drafted(values: list[bytes], derivation: Derivation) -> Draft:
    pending = Pending(end=3)
    for number, value in enumerate(values):
        pending.add(3 + number, decode(Message(3 + number, MOMENT_MS, value)))
    cut = pending.cut(Limits(records_max=1000, bytes_max=1 << 30))
    assert cut is not None
    return compose(Tail(log="k-t-0-0", genesis=3, end=3), cut, cut.candidates, "nonce", derivation)


def rows(data: bytes) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(data)).to_pylist()


def test_rows_point_at_their_records(envelope: Make, derivation: Derivation) -> None:
    envelopes = [envelope() for _ in range(20)]
    draft = drafted([orjson.dumps(e) for e in envelopes] + [b"poison"], derivation)
    found = rows(draft.index)
    assert list(found[0]) == list(COLUMNS)
    assert [row["request_id"] for row in found] == [e["request_id"] for e in envelopes] + [None]
    for row in found:
        assert row["object"] == draft.place.key("calls")
        line = members.open_member(draft.data[row["object_offset"] : row["object_offset"] + row["object_length"]])
        record = orjson.loads(line)
        assert (record["request_id"], record["lake"]["offset"]) == (row["request_id"], row["offset"])
    assert found[0]["cost_total"] == Decimal("0.000000000000000001")
    assert found[0]["properties"] == [("a", "b")]
    assert found[0]["received_at"].isoformat(timespec="microseconds").replace("+00:00", "Z") == envelopes[0]["timing"]["received_at"]
    assert pq.read_schema(io.BytesIO(draft.index)).equals(index.SCHEMA)


def test_the_object_alone_gives_the_same_index(envelope: Make, derivation: Derivation) -> None:
    draft = drafted([orjson.dumps(envelope()) for _ in range(5)] + [b"\xff"], derivation)
    assert rows(index.index_of(draft.data, draft.place.key("calls"), derivation.row)) == rows(draft.index)


def test_large_members_are_found_whole(envelope: Make, derivation: Derivation) -> None:
    big = [envelope(policy={"x": "".join(map(chr, range(256))) * size}) for size in (0, 1, 200, 3000)]
    draft = drafted([orjson.dumps(e) for e in big], derivation)
    assert [r["policy"] for _, _, r in index.records_in(draft.data)] == [e["policy"] for e in big]


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=3))
def test_damage_raises_only_our_error(position: int, noise: bytes) -> None:
    content = b"".join(members.member(orjson.dumps({"n": n}) + b"\n") for n in range(20))
    manifest = members.Manifest(log="k-t-0-0", start=0, end=20, count=20, nonce="n", sha256=members.digest(content), previous_sha256=None)
    data = bytearray(members.seal(manifest) + content)
    position %= len(data)
    data[position : position + len(noise)] = noise
    for broken in (bytes(data), bytes(data[:position])):
        try:
            list(index.records_in(broken))
        except NotAnObject:
            continue


@given(
    st.dictionaries(
        st.sampled_from(list(COLUMNS)), st.none() | st.text() | st.integers() | st.floats() | st.booleans() | st.lists(st.text())
    )
)
def test_no_value_stops_the_index(row: dict[str, Any]) -> None:
    assert len(rows(index.parquet([row]))) == 1


def test_a_row_that_breaks_is_still_there(envelope: Make, derivation: Derivation) -> None:
    def broken(record: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError

    sent = envelope()
    draft = drafted([orjson.dumps(sent)], Derivation(derive=broken, row=broken))
    assert [(r["request_id"], r["parse_error"]) for r in rows(draft.index)] == [(sent["request_id"], "row broke: RuntimeError")]
    assert next(index.records_in(draft.data))[2]["derived"] == {"parse_error": "derivation broke: RuntimeError"}


def test_ids_of_an_index_file() -> None:
    data = index.parquet([{"request_id": "a"}, {"request_id": None}, {"request_id": "b"}])
    assert index.request_ids(data) == ["a", "b"]
    with pytest.raises(ValueError, match="index"):
        index.request_ids(data[:50])
