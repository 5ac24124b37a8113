"""Derivation: one envelope -> what a record says beyond it. Pure; no content of a body makes `derive` raise.

    model             as answered, else as requested; with model_requested, and model_version (OpenAI's system fingerprint)
    response_id       the provider's own id of the answer
    provider_family   streamed
    params            {name: scalar}: temperature, top_p, seed, max_tokens, reasoning_effort ...
    answer            {text, reasoning, refusal, tool_calls: [{id, name, arguments}], alternatives?}
    finish_reasons    [text], in the provider's words
    error_code        the provider's own code
    service_tier      as answered, else as requested
    usage             {input_tokens ... output_audio_tokens, total_tokens, source, method, reason, units, stated}
                        source: provider, estimated, unknown (all counts null, with a reason); stated: the block as given;
                        units: {images, audio_seconds, characters or searches: decimal string} where it is billed by these
    cost              {input, output, tools, total, currency, source, reason, price_version, price_date, priced_as, variant,
                        variant_source, rates}
                        decimal strings in USD; source: provider (stated), book (priced by us), assumed (by the book,
                        the provider guessed from the model), overlay (the user's own prices), unknown (null, with a reason)
    first_token_ms    tokens_per_second, streams only
    parse_error       what could not be read; it holds no content

An answer with an error status that states no usage has usage unknown and cost null: providers differ in what they bill.
"""

from pathlib import Path
from typing import Any

from clearpane.contract.envelope import Envelope
from consumer.derive import answer as answers
from consumer.derive import costing, metering, reading, timing, tokens, units, usage
from consumer.derive.cost import Cost, plain
from consumer.derive.metering import Metered
from consumer.derive.overlay import BadOverlay
from consumer.derive.prices import PriceBook, open_book
from consumer.derive.reading import Reading
from consumer.derive.row import row
from consumer.derive.untrusted import mapping, storable

__all__ = ["BadOverlay", "PriceBook", "derive", "prepare", "row"]


def prepare(overlay: Path | None = None) -> PriceBook:
    """Loads and checks prices, the overlay's too, and encodings, a second's work: at the start, not at the first record that needs them.

    Raises EncodingDamaged when a file of the package is not the one that was published, BadOverlay with all that is wrong in the overlay.
    """
    for encoding in tokens.ENCODINGS:
        tokens.load(encoding)
    return open_book(overlay)


def derive(envelope: Envelope, book: PriceBook) -> dict[str, Any]:
    """The record's `derived` group; its shape stands at the top of this module. What it raises is a mistake of ours."""
    read = reading.read(envelope)
    metered = metering.meter(read)
    return _derived(read, metered, costing.charge(read, metered, book))


def _derived(read: Reading, metered: Metered, cost: Cost) -> dict[str, Any]:
    marks = mapping(read.envelope.get("timing"))
    compressed = bool(read.response.get("content_encoding"))
    first_ms = timing.first_token_ms(marks, read.content_end, compressed=compressed) if _streamed(read) else None
    output = metered.leaves.total_output if metered.leaves else None
    return {
        "model": read.answer.model or read.request.model,
        "model_requested": read.request.model,
        "model_version": read.answer.model_version,
        "response_id": read.response_id,
        "provider_family": read.family.NAME if read.family else None,
        "streamed": _streamed(read),
        "params": read.request.params,
        "answer": answers.record(read.answer),
        "finish_reasons": [choice.finish_reason for _, choice in sorted(read.answer.choices.items()) if choice.finish_reason],
        "error_code": read.answer.error_code if read.response.get("end") != "rejected" else None,  # then it is the proxy's own
        "service_tier": read.answer.service_tier or read.request.service_tier,
        "usage": _usage(read, metered),
        "cost": cost.record(),
        "first_token_ms": first_ms,
        "tokens_per_second": timing.tokens_per_second(marks, first_ms, output),
        "parse_error": read.error or metered.error,
    }


def _usage(read: Reading, metered: Metered) -> dict[str, Any]:
    return {
        **usage.record(metered.leaves),
        "source": metered.source,
        "method": metered.method,
        "reason": metered.reason,
        "units": _units(read, metered),
        "stated": storable(read.answer.stated),
    }


def _units(read: Reading, metered: Metered) -> dict[str, str | None] | None:
    name, used = units.name_of(read), units.count(read) if metered.leaves is None else None
    return {name: plain(used)} if name is not None and used is not None else None


def _streamed(read: Reading) -> bool:
    stated = read.response.get("streamed")
    return stated if isinstance(stated, bool) else read.response_body.streamed
