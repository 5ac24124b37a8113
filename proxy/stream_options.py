"""A streamed chat that is asked for its usage: `stream_options.include_usage` put into the request, and the chunk that comes of it
found in the answer. Pure. This is the one change of a body that the proxy makes, and only where it was told to.

The request is changed by inserting bytes; all others stay. The answer is taken apart into whole events, of which one is left out:
its `choices` are empty and it states a `usage`. What is held back meanwhile is an event without its end, which no reader can use.
https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options
"""

import re
from typing import Any

import orjson

# A larger request is sent on as it is: reading it would hold up other calls.
BODY_BYTES_MAX = 1 << 20
# A larger event is no usage, and is not held back.
EVENT_BYTES_MAX = 16 << 10

_STREAMED = re.compile(rb'"stream"\s*:\s*true')
_OPTIONS = re.compile(rb'"stream_options"\s*:\s*(\{|null)\s*')
_ASKED = b'"include_usage":true'
_LINE_END = rb"(?:\r\n|\n|\r(?=[^\n]))"
_EVENT_END = re.compile(_LINE_END + _LINE_END)
# A blank line between events, or a comment: servers keep a connection alive with them.
_BESIDE = re.compile(rb"(?:%b|:[^\r\n]*%b)+" % (_LINE_END, _LINE_END))
_REST_OF_COMMENT = re.compile(rb"[^\r\n]*(%b)?" % _LINE_END)
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class NotUnderstood(ValueError):
    """The request streams, but it is not JSON that can be changed in one place."""


def ask(body: bytes) -> bytes | None:
    """The request with the usage asked for; None when it is not streamed, or says itself whether it wants it. Raises NotUnderstood."""
    if _STREAMED.search(body) is None:
        return None
    asked = _loads(body)
    if asked.get("stream") is not True:
        return None
    if "stream_options" not in asked:
        at = body.index(b"{") + 1
        return b'%b"stream_options":{%b},%b' % (body[:at], _ASKED, body[at:])
    options = asked["stream_options"]
    if not isinstance(options, dict | None):
        raise NotUnderstood
    return None if options and "include_usage" in options else _added(body, asked, options or {})


def _added(body: bytes, asked: dict[str, Any], options: dict[str, Any]) -> bytes:
    found = _OPTIONS.search(body)
    if found is None:
        raise NotUnderstood
    if options:
        changed = b"%b%b,%b" % (body[: found.end()], _ASKED, body[found.end() :])
    else:  # `{}` or null
        end = body.find(b"}", found.end()) + 1 if found[1] == b"{" else found.end()
        changed = b"%b{%b}%b" % (body[: found.start(1)], _ASKED, body[end:])
    if _loads(changed) != {**asked, "stream_options": {**options, "include_usage": True}}:  # that was another one, deeper within
        raise NotUnderstood
    return changed


def _loads(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise NotUnderstood from None
    if not isinstance(found, dict):
        raise NotUnderstood
    return found


class Filter:
    """The events of an answer without the usage's; any split of the bytes gives the same. `withheld_bytes` counts what is left out."""

    __slots__ = ("_commenting", "_held", "_passing", "_searched", "withheld_bytes")

    def __init__(self) -> None:
        self.withheld_bytes = 0
        self._held = b""
        self._searched = 0  # bytes of what is held in which no event ends
        self._passing = False  # within an event that is too large
        self._commenting = False  # within a comment: it is not held back, and what follows it is an event of its own

    def feed(self, data: bytes) -> bytes:
        """What may be sent on."""
        held, at, out = self._held + data if self._held else data, 0, list[bytes]()
        while True:
            end, whole = self._next(held, at)
            if end == at:
                break
            out.append(self._shown(held[at:end], whole=whole))
            at, self._searched = end, 0
        self._held = held[at:]
        return b"".join(out)

    def close(self) -> bytes:
        """What is left when the answer is over, or broke off."""
        rest, self._held = self._held, b""
        return self._shown(rest, whole=not self._passing and len(rest) <= EVENT_BYTES_MAX)

    def _next(self, held: bytes, at: int) -> tuple[int, bool]:
        """Up to where can be decided, and whether that is one event; `at` when nothing can yet."""
        if self._commenting:
            return self._rest_of_comment(held, at), False
        if not self._passing and (beside := _BESIDE.match(held, at)):
            return beside.end(), False
        if not self._passing and held.startswith(b":", at):
            self._commenting = True
            return at + 1, False
        if found := _EVENT_END.search(held, at + max(self._searched - 3, 0)):
            whole = not self._passing and found.end() - at <= EVENT_BYTES_MAX
            self._passing = False
            return found.end(), whole
        self._searched = len(held) - at
        self._passing = self._passing or self._searched > EVENT_BYTES_MAX
        # The last line ends may be the first half of a blank line.
        return at + len(held[at:].rstrip(b"\r\n")) if self._passing else at, False

    def _rest_of_comment(self, held: bytes, at: int) -> int:
        found = _REST_OF_COMMENT.match(held, at)
        assert found is not None  # it matches anything
        self._commenting = found[1] is None
        return found.end()

    def _shown(self, piece: bytes, *, whole: bool) -> bytes:
        if whole and _is_usage(piece):
            self.withheld_bytes += len(piece)
            return b""
        return piece


def _is_usage(event: bytes) -> bool:
    if _NO_CHOICES.search(event) is None:
        return False
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    try:
        found = orjson.loads(lines[0]) if len(lines) == 1 else None
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("choices") == [] and isinstance(found.get("usage"), dict)
