"""A stored record -> what it costs by another price book: its usage as recorded, its price anew. Pure."""

from typing import Any

from clearpane.contract.records import Record, Row
from consumer.derive import costing, reading, units
from consumer.derive.metering import Metered
from consumer.derive.prices import PriceBook
from consumer.derive.row import row
from consumer.derive.untrusted import Malformed, count, mapping, text
from consumer.derive.usage import ALL, Leaves

# The columns that a price makes.
COLUMNS = ("cost_input", "cost_output", "cost_total", "cost_source", "cost_reason", "price_version", "price_variant")


def reprice(record: Record, book: PriceBook) -> Row:
    """The columns COLUMNS by this book. A record that tells neither tokens nor other units keeps the cost that it has, which is unknown."""
    derived = mapping(record.get("derived"))
    metered, read = _metered(mapping(derived.get("usage"))), reading.read(record)
    if metered.leaves is None and units.count(read) is None:
        return recorded(record)
    if not read.answer.understood:  # the body is gone: what it said is in the record
        read.answer.model, read.answer.service_tier = text(derived.get("model")), text(derived.get("service_tier"))
    return _columns({"derived": {"cost": costing.charge(read, metered, book).record()}})


def recorded(record: Record) -> Row:
    """The same columns as the record itself has them."""
    return _columns(record)


def _columns(record: dict[str, Any]) -> Row:
    found = row(record)
    return {name: found[name] for name in COLUMNS}


def _metered(usage: dict[str, Any]) -> Metered:
    try:
        leaves = Leaves(**{leaf: count(usage, leaf) or 0 for leaf in ALL})
    except Malformed:
        return Metered(None, "unknown")
    source = text(usage.get("source")) or "unknown"
    return Metered(None if source == "unknown" else leaves, source)
