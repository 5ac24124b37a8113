"""The columns of an index file as Arrow types: what the consumer writes and the reader expects."""

from typing import Any

import pyarrow as pa

from clearpane.contract.records import COLUMNS, Kind

TYPES: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.decimal128(38, 18),
    "flag": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
    "texts": pa.list_(pa.string()),
    "map": pa.map_(pa.string(), pa.string()),
}
SCHEMA = pa.schema([pa.field(name, TYPES[kind]) for name, kind in COLUMNS.items()])


def aligned(table: Any) -> Any:
    """An Arrow table with exactly these columns: files of older versions lack some, which are null."""
    if table.schema.equals(SCHEMA):
        return table
    names = table.column_names
    return pa.table([table[f.name].cast(f.type) if f.name in names else pa.nulls(len(table), f.type) for f in SCHEMA], schema=SCHEMA)
