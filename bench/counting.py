"""How far our counts of tokens are from those that the providers stated, on the records of a lake.

    python bench/counting.py LAKE_FOLDER [--stated]

`--stated` holds the derived usage against the stated counts instead, which it adds up by names alone: as the families do not.

Every chat with a stated usage is counted as if it had none. An answer with hidden reasoning is left out: nobody can count it.
"""

import argparse
import gzip
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import orjson

from consumer.derive import PriceBook, derive, estimate, families, images, reading, tokens
from consumer.derive.reading import Reading
from consumer.derive.usage import INPUT as INPUT_LEAVES
from consumer.derive.usage import Leaves

Errors = dict[tuple[str, str, str], list[float]]


def records(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("calls/*/*/*.jsonl.gz")):
        with gzip.open(file) as lines:
            yield from map(orjson.loads, lines)


def kind(read: Reading) -> str:
    """What is hard to count in the prompt; the first that holds."""
    asked = read.asked
    structured = (asked.get("text") or {}).get("format", {}).get("type") if isinstance(asked.get("text"), dict) else None
    if images.others(asked):
        return "files, hidden history, hosted tools"
    if images.find(asked):
        return "images"
    if asked.get("response_format") or structured not in (None, "text"):
        return "structured output"
    return "tools" if asked.get("tools") else "text"


def measure(read: Reading, stated: Leaves, errors: Errors, shown: bool) -> None:
    family, model = read.family, read.answer.model or read.request.model
    assert family is not None
    group = family.NAME if tokens.encoding_of(model)[1] else f"{family.NAME}, other encoding"
    counted = estimate.of_prompt(family.prompt(read.asked), model, read.asked).tokens
    made = estimate.of_answer(read.answer, model).tokens
    if stated.total_input:
        errors[group, "input", kind(read)].append((counted - stated.total_input) / stated.total_input)
        if shown:
            print(f"{group} {kind(read)} {model}: {counted} counted, {stated.total_input} stated")
    if stated.total_output and not stated.reasoning_tokens and read.answer.generated:
        called = any(choice.tools for choice in read.answer.choices.values())
        errors[group, "output", "tools" if called else "text"].append((made - stated.total_output) / stated.total_output)


BESIDE_INPUT = ("cache_read_input_tokens", "cache_creation_input_tokens", "cacheReadInputTokens", "cacheWriteInputTokens")
BESIDE_INPUT += ("toolUsePromptTokenCount",)
INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "inputTokenCount")
OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens")
TOTAL = ("total_tokens", "totalTokenCount", "totalTokens")


def stated_counts(stated: dict[str, Any]) -> tuple[int | None, int | None, int | None]:
    """Input, output, total; None where the provider does not say."""
    blocks = [stated, stated.get("tokens") or {}, stated.get("headers") or {}]
    given, made, whole = (
        next((block[name] for block in blocks for name in names if isinstance(block.get(name), int)), None)
        for names in (INPUT, OUTPUT, TOTAL)
    )
    beside = sum(stated.get(name) or 0 for name in BESIDE_INPUT)
    thought = stated.get("thoughtsTokenCount") or 0
    return given if given is None else given + beside, made + thought if made is not None else thought or None, whole


def compare(record: dict[str, Any], book: PriceBook) -> str:
    """What became of the record's usage; one that differs is shown."""
    usage = derive(record, book)["usage"]
    if usage["source"] != "provider":
        return usage["reason"] or usage["method"]
    given = sum(usage[name] for name in INPUT_LEAVES)
    found = (given, usage["total_tokens"] - given, usage["total_tokens"])
    stated = stated_counts(usage["stated"])
    if all(each is None or each == ours for each, ours in zip(stated, found, strict=True)):
        return "as stated"
    print(f"{(record.get('target') or {}).get('url')}: derived {found}, stated {stated}")
    return "differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a lake in a local folder")
    parser.add_argument("--each", action="store_true", help="every prompt's counts too")
    parser.add_argument("--stated", action="store_true", help="derived usage against the stated one, every record")
    arguments = parser.parse_args()
    if arguments.stated:
        book = PriceBook()
        for outcome, count in Counter(compare(record, book) for record in records(arguments.folder)).most_common():
            print(f"{count:>6}  {outcome}")
        return
    errors: Errors = defaultdict(list)
    for record in records(arguments.folder):
        read = reading.read(record)
        if read.family is None or read.family is families.embeddings or not read.answer.stated:
            continue
        stated = read.family.leaves(read.answer.stated)
        if stated is not None and read.asked:
            measure(read, stated, errors, arguments.each)
    print(f"{'':58}{'calls':>6}{'exact':>6}{'median':>8}{'p90':>8}{'worst':>8}")
    for (group, side, what), found in sorted(errors.items()):
        sizes = sorted(map(abs, found))
        p90 = sizes[min(len(sizes) - 1, len(sizes) * 9 // 10)]
        print(
            f"{f'{group}, {side}, {what}':58}{len(sizes):>6}{sizes.count(0):>6}{statistics.median(sizes):>8.1%}{p90:>8.1%}{sizes[-1]:>8.1%}"
        )


if __name__ == "__main__":
    main()
