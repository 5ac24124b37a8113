"""Answers of the proxy itself, in the shape that the caller's SDK reads. Pure.

They name the proxy as their source, the reason (a closed set), and what to do.
"""

import orjson

from clearpane.contract.controls import ID_HEADER

REASON_HEADER = b"Clearpane-Error"

# reason -> (status, the type that the SDKs of OpenAI and Anthropic know)
_STATUS_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    431: "request_too_large",
    500: "api_error",
    501: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_PHRASES = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    408: b"Request Timeout",
    413: b"Content Too Large",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


def error_body(status: int, reason: str, message: str, *, request_id: str | None, anthropic: bool) -> bytes:
    """OpenAI's `error` object, or Anthropic's `type: error` around one."""
    kind = _STATUS_TYPES.get(status, "api_error")
    text = f"Clearpane (the proxy, not the provider): {message}"
    if anthropic:
        error = {"type": kind, "message": text, "source": "proxy", "reason": reason}
        return orjson.dumps({"type": "error", "error": error, "request_id": request_id})
    return orjson.dumps(
        {"error": {"message": text, "type": kind, "param": None, "code": reason, "source": "proxy", "request_id": request_id}}
    )


def answer_head(status: int, body: bytes, added: bytes = b"", *, close: bool) -> bytes:
    """`added`: further header lines, each with its CRLF."""
    head = b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (status, _PHRASES.get(status, b""), len(body))
    return b"".join((head, added, b"Connection: close\r\n\r\n" if close else b"\r\n"))


def refusal(status: int, reason: str, text: str, *, request_id: str) -> bytes:
    """A whole answer to what is no call."""
    body = error_body(status, reason, text, request_id=request_id, anthropic=False)
    added = b"%b: %b\r\n%b: %b\r\n" % (ID_HEADER.encode(), request_id.encode(), REASON_HEADER, reason.encode())
    return answer_head(status, body, added, close=True) + body
