"""One Parquet file of the index as rows. The only module of the readers that knows pyarrow."""

import functools
import io
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clearpane.columns import SCHEMA, TYPES, aligned
from clearpane.contract.lake import Place
from clearpane.contract.records import COLUMNS, Row
from reader.filter import Filter
from reader.lake import DamagedIndex

_FAILED_ENDS = ["upstream_error", "timeout", "shutdown", "interrupted", "rejected"]


def rows(key: str, data: bytes, wanted: Filter | None = None, names: Sequence[str] = tuple(COLUMNS)) -> list[Row]:
    """The rows of an index file, whole or those that `wanted` asks for: one value per name. Reads all columns. Raises DamagedIndex."""
    try:
        # The plain reader: for a file of a few rows, a dataset's machinery would cost more than the reading.
        table = aligned(pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(key, error) from error
    conditions = _conditions(wanted) if wanted else []
    chosen = table.filter(functools.reduce(operator.and_, conditions)) if conditions else table
    found: list[Row] = chosen.select(names).to_pylist(maps_as_pydicts="lossy")
    return found


def columns(key: str, data: bytes, names: list[str]) -> list[Row]:
    """Some columns of an index file; one that it lacks is null. Raises DamagedIndex."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        table = file.read(columns=[name for name in names if name in file.schema_arrow.names], use_threads=False)
        lacking = [name for name in names if name not in table.column_names]
        found: list[Row] = [{**dict.fromkeys(lacking), **row} for row in table.to_pylist()]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(key, error) from error
    return found


def _damaged(key: str, error: Exception) -> DamagedIndex:
    found = DamagedIndex(f"{key} cannot be read: {str(error).partition(chr(10))[0]}: `clearpane index rebuild` makes it again")
    found.key = key
    return found


def dataset(files: Iterable[tuple[Place, Callable[[], io.RawIOBase]]]) -> Any:
    """A pyarrow dataset over the files with the columns of COLUMNS, `dt` and `hour`; a file is read when a scan needs it."""
    form = ds.ParquetFileFormat()
    fragments = [form.make_fragment(pa.PythonFile(opened(), mode="r"), partition_expression=_partition(place)) for place, opened in files]
    schema = SCHEMA.append(pa.field("dt", pa.string())).append(pa.field("hour", pa.string()))
    return ds.FileSystemDataset(fragments, schema=schema, format=form)


class BrokenScan(Exception):
    """What broke while a stream was read."""


def stream(source: Any) -> tuple[tuple[str, ...], Iterator[tuple[Any, ...]]]:
    """(names, rows) of anything that speaks Arrow's stream protocol, read batch by batch. Raises BrokenScan, also while rows are taken."""
    with _scanned():
        reader = pa.RecordBatchReader.from_stream(source)
    return tuple(reader.schema.names), _rows_of(reader)


def _rows_of(reader: Any) -> Iterator[tuple[Any, ...]]:
    with _scanned():
        for batch in reader:
            yield from zip(*(_values(column) for column in batch.columns), strict=True)


def _values(column: Any) -> list[Any]:
    found: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    # Sums of whole numbers come as decimals without places.
    is_whole = pa.types.is_decimal(column.type) and column.type.scale == 0
    return [None if value is None else int(value) for value in found] if is_whole else found


@contextmanager
def _scanned() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise BrokenScan(str(error)) from error


def _partition(place: Place) -> Any:
    return (ds.field("dt") == f"{place.hour:%Y-%m-%d}") & (ds.field("hour") == f"{place.hour:%H}")


def _conditions(wanted: Filter) -> list[Any]:
    """One boolean expression for each thing asked for (of three values, as in SQL); only what is true is wanted."""
    equal = {"user_id": wanted.user, "session_id": wanted.session, "provider": wanted.provider, "end": wanted.end}
    either = {("model", "model_requested"): wanted.model, ("request_id", "client_request_id"): wanted.request_id}
    found = [pc.field(name) == value for name, value in equal.items() if value is not None]
    found += [(pc.field(one) == value) | (pc.field(other) == value) for (one, other), value in either.items() if value is not None]
    found += [pc.map_lookup(pc.field("properties"), name, "first") == value for name, value in wanted.properties.items()]
    if wanted.id_prefix is not None:
        found.append(pc.starts_with(pc.field("request_id"), wanted.id_prefix))
    if wanted.since is not None:
        found.append(pc.field("received_at") >= _time(wanted.since))
    if wanted.until is not None:
        found.append(pc.field("received_at") < _time(wanted.until))
    if wanted.cost_min is not None:
        found.append(pc.field("cost_total") >= pa.scalar(wanted.cost_min, TYPES["decimal"]))
    if wanted.status is not None:
        found.append(_status(wanted.status))
    return found


def _time(moment: datetime) -> Any:
    return pa.scalar(moment.astimezone(UTC), TYPES["time"])


def _status(wanted: str) -> Any:
    code = pc.field("status")
    if wanted == "error":
        failed = pc.is_null(code) | (code >= 400)
        return failed | pc.is_valid(pc.field("error_type")) | pc.field("end").isin(_FAILED_ENDS)
    if wanted.endswith("xx"):
        return (code >= int(wanted[0]) * 100) & (code < int(wanted[0]) * 100 + 100)
    return code == int(wanted)
