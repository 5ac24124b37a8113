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
BEGIN, END = "<!-- faults: made by `make faults`, do not edit -->", "<!-- faults: end -->"
HEAD = ("| fault | what was done | calls | recorded | lost | doubled | seen |", "| --- | --- | ---: | ---: | ---: | ---: | --- |")


def rows(lines: list[dict[str, Any]]) -> list[str]:
    ordered = sorted(lines, key=lambda line: (int(re.sub(r"\D", "", line["fault"])), line["did"]))
    return [
        f"| {line['fault']} | {_cell(line['did'])} | {line['calls']:,} | {line['recorded']:,} | {line['lost']} | {line['doubled']} "
        f"| {_cell(line['seen'])} |"
        for line in ordered
    ]


def table(lines: list[dict[str, Any]], commit: str, date: str) -> str:
    seeds = ", ".join(sorted({str(line["seed"]) for line in lines}))
    total = sum(line["calls"] for line in lines)
    minutes = sum(line["seconds"] for line in lines) / 60
    about = f"{date}, commit {commit}, seed {seeds}: {len(lines)} faults, {total:,} calls, {minutes:.0f} minutes."
    return "\n".join((*HEAD, *rows(lines), "", about))


def written(page: str, found: str) -> str:
    """The page with the table between its two marks. Raises ValueError where they are not."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END} in the page")
    return f"{before}{BEGIN}\n\n{found}\n\n{END}{after}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=7"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.faults.table")
    parser.add_argument("file", type=Path, help="a line of JSON for each fault")
    parser.add_argument("--write-docs", action="store_true", help="put it into docs/reliability.md")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.file.read_text().splitlines()]
    found = table(lines, _commit(), time.strftime("%Y-%m-%d", time.gmtime()))
    print(found)
    if arguments.write_docs:
        PAGE.write_text(written(PAGE.read_text(), found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
