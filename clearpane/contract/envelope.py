"""Envelope v1: what the proxy states of one call. The JSON Schema beside this file is its published form.

The worker makes `facts` (the envelope without bodies, source and sequence) and appends them to the spool
with the captured bytes; the shipper adds the rest, redacts, and sends. Everything derived (model, usage,
tokens, cost) is the consumer's. Absent is null, never 0 and never an empty string.
"""

from typing import Any, Literal

SCHEMA = "call.v1"
# Kafka header on every message and HTTP header on every POST.
SCHEMA_HEADER = "clearpane-schema"

Event = Literal["started", "completed"]
End = Literal[
    "complete",  # the last byte of the answer reached the client's socket
    "client_disconnected",
    "client_error",  # the request's body was malformed, too slow or too large: it could not be sent on to its end
    "upstream_error",  # refused, reset, broken or malformed answer
    "timeout",  # one of our deadlines on the upstream
    "shutdown",  # the proxy stopped and the grace time was over
    "rejected",  # the proxy itself answered: no upstream saw the call
    "interrupted",  # the proxy's process died: written by the shipper from what the spool held
]
ErrorSource = Literal["client", "upstream", "proxy"]
BodyEncoding = Literal["utf-8", "base64"]

Facts = dict[str, Any]
Envelope = dict[str, Any]

GROUPS = ("trace", "caller", "target", "request", "response", "timing", "policy")
