"""The record: one line of a `calls/` object, and the flat columns of its row in `index/`.

A record is the completed envelope plus `derived` (the consumer's work) and `lake` (where it stands).
The columns below are what `clearpane calls --json`, `clearpane query` and every other reader see.
"""

from typing import Any, Literal

Record = dict[str, Any]
Row = dict[str, Any]

SCHEMA = "record.v1"

# decimal: a decimal string in the record, DECIMAL(38, 18) in Parquet. time: UTC microseconds.
Kind = Literal["text", "integer", "number", "decimal", "flag", "time", "texts", "map"]
Provenance = Literal["provider", "estimated", "unknown"]

COLUMNS: dict[str, Kind] = {
    "request_id": "text",
    "client_request_id": "text",
    "received_at": "time",
    "ingested_at": "time",
    "status": "integer",
    "end": "text",
    "error_source": "text",
    "error_type": "text",
    "error_code": "text",  # the provider's own code, from the body
    "provider": "text",
    "upstream": "text",
    "operation": "text",
    "model": "text",  # as answered, else as requested
    "model_requested": "text",
    "model_version": "text",  # system fingerprint
    "streamed": "flag",
    "finish_reason": "text",
    "user_id": "text",
    "session_id": "text",
    "session_path": "text",
    "session_name": "text",
    "prompt_id": "text",
    "properties": "map",
    "key_fingerprint": "text",
    "user_agent": "text",
    "trace_id": "text",
    # Leaf buckets: every token stands in exactly one of them.
    "input_tokens": "integer",  # neither read from nor written to a cache, not audio, not image
    "cache_read_tokens": "integer",
    "cache_write_5m_tokens": "integer",
    "cache_write_1h_tokens": "integer",
    "input_audio_tokens": "integer",
    "input_image_tokens": "integer",
    "output_tokens": "integer",  # without reasoning, audio and images
    "reasoning_tokens": "integer",
    "output_audio_tokens": "integer",
    "total_tokens": "integer",  # the sum of the leaves
    "usage_source": "text",  # provider, estimated, unknown
    "cost_input": "decimal",
    "cost_output": "decimal",
    "cost_total": "decimal",  # USD
    "cost_source": "text",  # provider (stated), book (priced by us), assumed (by us, provider guessed from the model), overlay, unknown
    "cost_reason": "text",  # why it is unknown
    "price_version": "text",
    "price_variant": "text",  # what sets the price apart from the standard one: tier, long context, region
    # Null until `clearpane reprice` gave the columns above a newer price: then what the call was recorded with.
    "cost_recorded": "decimal",
    "price_version_recorded": "text",
    "repriced_at": "time",
    "duration_ms": "number",
    "first_byte_ms": "number",
    "first_token_ms": "number",
    "tokens_per_second": "number",
    "proxy_ms": "number",
    "request_bytes": "integer",
    "response_bytes": "integer",
    "parse_error": "text",
    "attempt": "integer",
    "source": "text",
    "sequence": "integer",
    # The pointer: one range read opens the full record.
    "log": "text",
    "offset": "integer",
    "object": "text",  # key in calls/
    "object_offset": "integer",  # bytes
    "object_length": "integer",
    # Leaf buckets too; null in an index written before they had columns, and then within the one they are read from.
    "cache_read_audio_tokens": "integer",  # before: in cache_read_tokens
    "output_image_tokens": "integer",  # before: in output_tokens
    "response_id": "text",  # the provider's own: a stored answer, or a batch's, fetched twice has two records
}
