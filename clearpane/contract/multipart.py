"""Forms with files (`multipart/form-data`, RFC 7578): the fields that hold text, as a mapping. No I/O, never raises."""

import re

PARTS_MAX = 100
VALUE_BYTES_MAX = 64 << 10
_BOUNDARY_BYTES_MAX = 72  # RFC 2046: 70, and the two dashes
_HEAD_BYTES_MAX = 4 << 10
_NAME = re.compile(rb'form-data\s*;(?:[^\r\n]*;)?\s*name="?([^"\r\n;]{1,100})"?', re.IGNORECASE)
_FILE = re.compile(rb";\s*filename\*?=", re.IGNORECASE)


def boundary(data: bytes) -> bytes | None:
    """The line that a form begins with: two dashes and the boundary."""
    line, end, _ = data[: _BOUNDARY_BYTES_MAX + 2].partition(b"\r\n")
    return line if end and line.startswith(b"--") and len(line) > 2 else None


def fields(data: bytes) -> dict[str, str]:
    """Names ending in `[]` are repeated; the last one counts. Files, long values and parts that are cut are left out."""
    found: dict[str, str] = {}
    if (mark := boundary(data)) is None:
        return found
    at = len(mark) + 2
    for _ in range(PARTS_MAX):
        end = data.find(b"\r\n" + mark, at)
        if end < 0:
            break
        _take(found, data, at, end)
        at = end + len(mark) + 4
    return found


def _take(found: dict[str, str], data: bytes, start: int, end: int) -> None:
    head_end = data.find(b"\r\n\r\n", start, min(end, start + _HEAD_BYTES_MAX))
    head = data[start:head_end] if head_end >= 0 else b""
    name = _NAME.search(head)
    if name is not None and not _FILE.search(head) and end - head_end - 4 <= VALUE_BYTES_MAX:
        found[name[1].decode("utf-8", "replace").removesuffix("[]")] = data[head_end + 4 : end].decode("utf-8", "replace")
