"""The Parquet index of one object: a row per record, with a pointer to its gzip member in calls/.

Derived and rebuildable: `index_of` makes it from the object alone.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clearpane.columns import SCHEMA, TYPES, aligned
from clearpane.contract import members
from clearpane.contract.records import COLUMNS, Kind, Record, Row

RowOf = Callable[[Record], Row]

_UNIT = Decimal(1).scaleb(-18)
_DIGITS = Context(prec=38)
_PIECE_BYTES = 16 << 10


def index_of(data: bytes, key: str, row: RowOf) -> bytes:
    """The index of the object `data` that stands at `key`. Raises NotAnObject."""
    return parquet([pointed(row(record), key, start, length) for start, length, record in records_in(data)])


def records_in(data: bytes) -> Iterator[tuple[int, int, Record]]:
    """(byte offset, byte length, record) of every member. Raises NotAnObject for damaged bytes."""
    _, position = members.unseal(data)
    while position < len(data):
        line, length = _open_at(data, position)
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise members.NotAnObject(f"no JSON in the member at byte {position}") from error
        if not isinstance(record, dict):
            raise members.NotAnObject(f"no record in the member at byte {position}")
        yield position, length, record
        position += length


def _open_at(data: bytes, start: int) -> tuple[bytes, int]:
    """(content, byte length) of the member at `start`."""
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    parts, position = [], start
    while not inflate.eof and position < len(data):
        # In pieces: what is behind the member's end is copied each time.
        piece = data[position : position + _PIECE_BYTES]
        try:
            parts.append(inflate.decompress(piece))
        except zlib.error as error:
            raise members.NotAnObject(f"damaged member at byte {start}") from error
        position += len(piece)
    if not inflate.eof:
        raise members.NotAnObject(f"the member at byte {start} is cut")
    return b"".join(parts), position - len(inflate.unused_data) - start


def pointed(row: Row, key: str, start: int, length: int) -> Row:
    return {**row, "object": key, "object_offset": start, "object_length": length}


def parquet(rows: list[Row]) -> bytes:
    """Exactly the columns of the contract; a value of the wrong type is null, never an error."""
    arrays = [
        pa.array([_value(row.get(name), kind) for row in rows], type=TYPES[kind], from_pandas=False) for name, kind in COLUMNS.items()
    ]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), out, compression="zstd")
    return out.getvalue()


def merged(files: list[bytes]) -> bytes:
    """One index file with the rows of all, in their order. Raises ValueError for what is no Parquet of ours."""
    try:
        tables = [aligned(pq.read_table(io.BytesIO(data))) for data in files]
        out = io.BytesIO()
        pq.write_table(pa.concat_tables(tables).combine_chunks(), out, compression="zstd")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError("not an index file") from error
    return out.getvalue()


def from_offset(data: bytes, offset: int) -> bytes:
    """The index file without the rows below `offset` of the log. Raises ValueError for what is no Parquet of ours."""
    try:
        table = aligned(pq.read_table(io.BytesIO(data)))
        out = io.BytesIO()
        pq.write_table(table.filter(pc.field("offset") >= offset), out, compression="zstd")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError("not an index file") from error
    return out.getvalue()


def count(data: bytes) -> int:
    """Rows. Raises ValueError if it is no Parquet."""
    try:
        found: int = pq.read_metadata(io.BytesIO(data)).num_rows
    except (pa.ArrowException, OSError) as error:
        raise ValueError("not an index file") from error
    return found


def stored(column: str, value: Any) -> Any:
    """A value as the index gives it back: decimals have 18 places."""
    return _value(value, COLUMNS[column])


def request_ids(data: bytes) -> list[str]:
    """Of an index file's rows, those that have one. Raises ValueError if it is no Parquet of ours."""
    try:
        column = pq.read_table(io.BytesIO(data), columns=["request_id"]).column("request_id")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError("not an index file") from error
    return [name for name in column.to_pylist() if name is not None]


def _value(value: Any, kind: Kind) -> Any:
    return None if value is None else _CONVERT[kind](value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63 else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _decimal(value: Any) -> Decimal | None:
    try:
        exact = Decimal(value)
        return exact.quantize(_UNIT, context=_DIGITS) if exact.is_finite() else None
    except (InvalidOperation, TypeError, ValueError):
        return None


def _time(value: Any) -> datetime | None:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _texts(value: Any) -> list[str] | None:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else None


def _map(value: Any) -> list[tuple[str, str]] | None:
    return [(k, v) for k, v in value.items() if isinstance(k, str) and isinstance(v, str)] if isinstance(value, dict) else None


_CONVERT: dict[Kind, Callable[[Any], Any]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "decimal": _decimal,
    "flag": _flag,
    "time": _time,
    "texts": _texts,
    "map": _map,
}
