"""Server-sent events, by the WHATWG rules: bytes in, events out, no I/O. Any split of the bytes gives the same events."""

import re
from dataclasses import dataclass

LINE_BYTES_MAX = 16 << 20
EVENT_BYTES_MAX = 16 << 20
LINES_MAX = 1_000_000

_BOM = b"\xef\xbb\xbf"
# An event as nearly all are: one line of data, perhaps a name before it.
_PLAIN = re.compile(rb"(?:event: ?([^\r\n]*+)(\r?\n))?data: ?([^\r\n]*+)\r?\n\r?\n")


class SSEError(ValueError):
    """A line, an event or the number of lines is over its bound. The parser must not be fed again."""


@dataclass(slots=True)
class Event:
    name: str  # "message" unless the stream named it
    data: bytes  # data lines joined by LF
    end: int  # bytes of the stream up to the end of this event


class Parser:
    """`feed` bytes as they come; `close` gives the event that the stream's end cut off, if it held data.

    The standard drops such an event; here it is wanted, because some servers end without the last blank line.
    Ids and retry times are no concern of a record and are skipped.
    """

    def __init__(self, *, line_bytes_max: int = LINE_BYTES_MAX, event_bytes_max: int = EVENT_BYTES_MAX, lines_max: int = LINES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._event_bytes_max = event_bytes_max
        self._lines_left = lines_max
        self._rest = b""  # the line under way; may end in CR, whose LF may still come
        self._position = 0  # bytes of finished lines
        self._started = False
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, data: bytes) -> list[Event]:
        """Raises SSEError."""
        buffer = self._rest + data if self._rest else data
        events: list[Event] = []
        if at := self._take_plain(buffer, events):
            buffer = buffer[at:]
        lines = buffer.splitlines(keepends=True)
        # A line is finished by LF; by CR only when the next byte is known not to be LF.
        self._rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if len(self._rest) > self._line_bytes_max:
            raise SSEError(f"line longer than {self._line_bytes_max} bytes")
        self._lines_left -= len(lines)
        if self._lines_left < 0:
            raise SSEError("more lines than a stream may have")
        for line in lines:
            self._take(line, events)
        return events

    def _take_plain(self, buffer: bytes, events: list[Event]) -> int:
        """Whole plain events at the beginning, at a fifth of the time that their lines would take. Returns their bytes."""
        if self._data or self._name:
            return 0
        bytes_max = min(self._line_bytes_max, self._event_bytes_max - 1)
        at, position, lines = 0, self._position, 0
        while (found := _PLAIN.match(buffer, at)) and found.end() - at <= bytes_max and lines < self._lines_left - 3:
            name, end, value = found.groups()
            at = found.end()
            events.append(Event(name.decode("utf-8", "replace") if name else "message", value, position + at))
            lines += 2 if end is None else 3
        self._started = self._started or at > 0
        self._position += at
        self._lines_left -= lines
        return at

    def close(self) -> list[Event]:
        """Raises SSEError. The stream is over: the line under way counts, and the event under way is given."""
        events: list[Event] = []
        if self._rest:
            rest, self._rest = self._rest, b""
            self._take(rest, events)
        self._dispatch(events)
        return events

    def _take(self, line: bytes, events: list[Event]) -> None:
        self._position += len(line)
        if len(line) > self._line_bytes_max:
            raise SSEError(f"line longer than {self._line_bytes_max} bytes")
        line = line.rstrip(b"\r\n")
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if line.startswith(b"data:"):
            self._add(line[6:] if line.startswith(b"data: ") else line[5:])
        elif not line:
            self._dispatch(events)
        elif line.startswith(b"event:"):
            self._name = line[7:] if line.startswith(b"event: ") else line[6:]
        elif line == b"data":
            self._add(b"")
        elif line == b"event":
            self._name = b""

    def _add(self, value: bytes) -> None:
        self._data_bytes += len(value) + 1
        if self._data_bytes > self._event_bytes_max:
            raise SSEError(f"event larger than {self._event_bytes_max} bytes")
        self._data.append(value)

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            name = self._name.decode("utf-8", "replace") if self._name else "message"
            events.append(Event(name, b"\n".join(self._data), self._position))
            self._data, self._data_bytes = [], 0
        self._name = b""
