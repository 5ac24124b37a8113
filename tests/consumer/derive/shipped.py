"""An envelope on the way that it takes: through a frame of the spool and the shipper."""

import base64
from typing import Any

import orjson

from proxy.shipper import envelopes
from proxy.spool.frames import completed_payload

SOURCE = "0" * 32


def shipped(envelope: dict[str, Any], *omitted: str, answer: bytes | None = None) -> dict[str, Any]:
    """As the shipper sends it. `answer`: the bytes of its body, where they are not those of the envelope."""
    facts = {**envelope, "recorded_at": envelope["timing"]["received_at"]}
    facts["policy"] = {**envelope["policy"], "omitted": list(omitted), "dropped": [], "redactions": 0}
    sides = {name: {**envelope[name], "body": None, "body_encoding": None} for name in ("request", "response")}
    came = wire_of(envelope["response"]) if answer is None else answer
    payload = completed_payload(orjson.dumps({**facts, **sides}), wire_of(envelope["request"]), came)
    found: dict[str, Any] = orjson.loads(envelopes.completed(b"".join(payload), SOURCE, 0, 1).data)
    return found


def wire_of(side: dict[str, Any]) -> bytes:
    body = side["body"] or ""
    return base64.b64decode(body) if side["body_encoding"] == "base64" else body.encode()
