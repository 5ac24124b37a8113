"""What a verification found."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

KEPT_MAX = 10_000  # findings, and names of ignored objects, that are kept; all are counted

Kind = Literal[
    "damaged",  # not an object of ours, or a member of it cannot be opened
    "digest",  # the bytes are not those that were written
    "manifest",  # what an object says of itself does not agree with its key, its hour or its lines
    "chain",  # an object does not continue the one before it
    "gap",  # offsets that no object covers
    "overlap",  # offsets that two objects cover
    "genesis",  # the chain's beginning is missing
    "tail",  # the chain's end is missing: the lake once held more
    "line",  # a record that is no JSON, or that states another place
    "duplicate",  # one request id in two records
    "index_missing",
    "index_damaged",
    "index_differs",  # its rows are not those of the object
    "index_orphan",  # there is no such object
    "index_overlap",  # two files that count stand for the same objects: readers count their rows twice
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    kind: Kind
    detail: str
    log: str | None = None
    object: str | None = None
    request_id: str | None = None


@dataclass(slots=True)
class Report:
    """Counts of what was read, and all that is wrong with it."""

    logs: int = 0
    objects: int = 0
    records: int = 0
    bytes: int = 0
    findings_total: int = 0
    findings: list[Finding] = field(default_factory=list)
    in_flight: list[str] = field(default_factory=list)  # objects that have no index yet
    pruned: dict[str, int] = field(default_factory=dict)  # log -> the offset below which it was deleted on purpose
    ignored_total: int = 0
    ignored: list[str] = field(default_factory=list)  # objects of others

    @property
    def clean(self) -> bool:
        return self.findings_total == 0

    def add(self, *findings: Finding) -> None:
        self.findings_total += len(findings)
        self.findings += findings[: max(0, KEPT_MAX - len(self.findings))]

    def ignore(self, key: str) -> None:
        self.ignored_total += 1
        if len(self.ignored) < KEPT_MAX:
            self.ignored.append(key)

    def to_dict(self) -> dict[str, Any]:
        return {"clean": self.clean, **asdict(self)}

    def lines(self, lake: str, shown_max: int) -> list[str]:
        """For people."""
        logs, objects, records = _count(self.logs, "log"), _count(self.objects, "object"), _count(self.records, "record")
        found = [f"{lake}: {logs}, {objects}, {records}, {_size(self.bytes)}"]
        found += [f"{'':4}{line}" for finding in self.findings[:shown_max] for line in _lines(finding)]
        if self.findings_total > shown_max:
            found.append(
                f"    and {self.findings_total - shown_max} more: --json has {'all' if self.findings_total <= KEPT_MAX else KEPT_MAX}"
            )
        found += [f"in flight, no index yet: {key}" for key in self.in_flight[:shown_max]]
        found += [f"pruned up to offset {end}: {log}" for log, end in list(self.pruned.items())[:shown_max]]
        found += [f"ignored, not ours: {key}" for key in self.ignored[:shown_max]]
        if self.ignored_total > shown_max:
            found.append(f"ignored: {self.ignored_total} in all")
        return [*found, "clean" if self.clean else _count(self.findings_total, "finding")]


def _lines(finding: Finding) -> list[str]:
    where = [f"{name} {value}" for name, value in (("in", finding.object or finding.log), ("call", finding.request_id)) if value]
    return [f"{finding.kind}: {finding.detail}", *(f"    {text}" for text in where)]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
