"""The results of `make faults` as the table in docs/reliability.md.

python -m tests.faults.table FILE [--write-docs]
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
HEAD = ("| fault | what was done | calls | recorded | lost | doubled | seen |", "| --- | --- | ---: | ---: | ---: | ---: | --- |")


def rows(lines: list[dict[str, Any]]) -> list[str]:
    ordered = sorted(lines, key=lambda line: (int(re.sub(r"\D", "", line["fault"])), line["did"]))
    return [
        f"| {line['fault']} | {_cell(line['did'])} | {line['calls']:,} | {line['recorded']:,} | {line['lost']} | {line['doubled']} "
        f"| {_cell(line['seen'])} |"
        for line in ordered
    ]


def table(lines: list[dict[str, Any]], when: str) -> str:
    seeds = ", ".join(sorted({str(line["seed"]) for line in lines}))
    total = sum(line["calls"] for line in lines)
    minutes = sum(line["seconds"] for line in lines) / 60
    return "\n".join((*HEAD, *rows(lines), "", f"{when}, seed {seeds}: {len(lines)} faults, {total:,} calls, {minutes:.0f} minutes."))


def written(page: str, found: str, target: str) -> str:
    """The page with what `make <target>` found between its two marks. Raises ValueError where they are not."""
    first, last = f"<!-- {target}: made by `make {target}`, do not edit -->", f"<!-- {target}: end -->"
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"no {first} and {last} in the page")
    return f"{before}{first}\n\n{found}\n\n{last}{after}"


def write(found: str, target: str) -> None:
    PAGE.write_text(written(PAGE.read_text(), found, target))


def about() -> str:
    """Of which day and which code."""
    found = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=7"], cwd=ROOT, capture_output=True, text=True)
    return f"{time.strftime('%Y-%m-%d', time.gmtime())}, commit {found.stdout.strip() or 'unknown'}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.table")
    parser.add_argument("file", type=Path, help="a line of JSON for each fault")
    parser.add_argument("--write-docs", action="store_true", help="put it into docs/reliability.md")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.file.read_text().splitlines()]
    found = table(lines, about())
    print(found)
    if arguments.write_docs:
        write(found, "faults")
    return 0


if __name__ == "__main__":
    sys.exit(main())
