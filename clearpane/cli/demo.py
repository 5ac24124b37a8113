"""`clearpane demo`: the whole on one machine in front of a fake provider, a script of calls, and the account."""

import argparse
import asyncio
import importlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson

from clearpane.cli import account
from clearpane.cli.account import Recorded
from clearpane.cli.fake import Entry, FakeProvider
from clearpane.cli.stack import Stack
from clearpane.runtime import logs
from clearpane.settings import Settings
from clearpane.store import Store
from reader import record, rows, show, table, verify
from reader.filter import Filter

# From the last call until the last record is in the lake: some two seconds, on a busy machine more.
ARRIVAL_S, POLL_S = 30.0, 0.2
ROWS_MAX = 1000
_QUERY = "select user_id, sum(cost_total) usd from calls group by 1 order by 1"
_GREEN, _RED, _DIM, _BOLD, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("demo", help="a trial: a fake provider, calls by the official SDKs, recorded and shown")
    parser.add_argument("--data", metavar="DIR", help="folder of spool and lake; default: a new temporary one")
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0 when every call was recorded once, with the tokens and the cost that the provider stated; else 1."""
    logs.start("warning")
    folder = Path(arguments.data) if arguments.data else Path(tempfile.mkdtemp(prefix="clearpane-demo-"))
    return asyncio.run(_Demo(folder).run(keep=arguments.keep))


class _Demo:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._colored = sys.stdout.isatty()
        self._width = shutil.get_terminal_size((80, 24)).columns

    async def run(self, *, keep: bool) -> int:
        self._say(_BOLD, "Clearpane: a transparent proxy that records every LLM call once\n")
        # The SDKs take seconds to load; the processes start meanwhile.
        loading = asyncio.create_task(asyncio.to_thread(importlib.import_module, "clearpane.cli.script"))
        async with FakeProvider() as provider, Stack(_settings(self._folder, provider.url), proxy=True, consumer=True) as stack:
            assert stack.lake is not None
            await loading
            self._introduce(provider, stack)
            begun = datetime.now(UTC)
            failures = await self._play(stack.url)
            calls = await self._arrived(provider.ledger.entries, Store.open(stack.lake), begun)
            problems = failures + account.differences(provider.ledger.entries, calls)
            problems += [f"verify: {finding.detail}" for finding in (await verify.verify(Store.open(stack.lake))).findings]
            self._show(calls)
            self._settle(provider.ledger.entries, problems)
            if not problems:
                self._open_one(calls)
            self._point_on(stack, calls, provider.ledger.entries)
            if keep:
                await self._wait(stack)
        return 1 if problems else 0

    def _introduce(self, provider: FakeProvider, stack: Stack) -> None:
        self._say(_PLAIN, f"  fake provider  {provider.url}   speaks OpenAI and Anthropic")
        self._say(_PLAIN, f"  proxy          {stack.url}   all that the SDKs change")
        self._say(_PLAIN, f"  lake           {stack.lake}\n")

    async def _play(self, url: str) -> list[str]:
        from clearpane.cli import script

        self._say(_BOLD, f"Three people make {script.CALLS} calls at the same time, with the official SDKs\n")
        async with script.sdks(url) as clients:
            return await script.play(clients, self._tell)

    def _tell(self, user: str, title: str, seconds: float) -> None:
        print(f"  {self._dye(_GREEN, '✓')} {user:<5}{title:<42}{self._dye(_DIM, f'{seconds:>6.2f} s')}", flush=True)

    async def _arrived(self, entries: Sequence[Entry], store: Store, begun: datetime) -> list[Recorded]:
        """The recorded calls, when all that the provider saw are among them; what there is when the time is over."""
        from clearpane.cli import script

        since, opened = time.monotonic(), _Opened(store, begun)
        while True:
            calls = await opened.calls()
            if len(entries) >= script.CALLS and not account.missing(entries, calls):
                self._say(_PLAIN, f"\nAll {len(calls)} records are in the lake, {time.monotonic() - since:.1f} s after the last call\n")
                return calls
            if time.monotonic() - since > ARRIVAL_S:
                self._say(_RED, f"\nAfter {ARRIVAL_S:g} s some records are not in the lake\n")
                return calls
            await asyncio.sleep(POLL_S)

    def _show(self, calls: Sequence[Recorded]) -> None:
        found = [call.row for call in calls]
        shape = table.layout(found, width=self._width, zone=None, colored=self._colored)
        print(shape.header(), *map(shape.line, found), "", sep="\n")

    def _settle(self, entries: Sequence[Entry], problems: Sequence[str]) -> None:
        if problems:
            self._say(_RED, "The account does not come out even:")
            print(*(f"  {problem}" for problem in problems), "", sep="\n")
            return
        told = [entry for entry in entries if entry.tokens is not None]
        silent = sum(entry.tokens is None and entry.status < 400 for entry in entries)
        cost = table.money(account.stated(entries))
        self._say(_GREEN, f"✓ each of {len(entries)} calls recorded once; the lake verifies clean")
        self._say(_GREEN, f"✓ {len(told)} stated their usage: tokens and {cost} agree to the last digit")
        self._say(_PLAIN, f"~ {silent} did not (not asked for, or left early): estimated, and marked as such\n")

    def _open_one(self, calls: Sequence[Recorded]) -> None:
        """A call with tools: short, and with something to see."""
        call = next(call for call in calls if call.row["finish_reason"] == "tool_calls")
        self._say(_BOLD, "One call in full\n")
        print(show.page(call.record, width=self._width, zone=None, colored=self._colored))

    def _point_on(self, stack: Stack, calls: Sequence[Recorded], entries: Sequence[Entry]) -> None:
        command, lake = _command(), stack.lake
        total = sum((call.row["cost_total"] or Decimal(0) for call in calls), Decimal(0))
        estimated = table.money(total - account.stated(entries))
        self._say(_BOLD, f"Total cost {table.money(total)}, {estimated} of it estimated. The files are yours:\n")
        print(f"  {lake}/calls   full records, gzip JSON lines")
        print(f"  {lake}/index   Parquet, one row per call\n")
        self._say(_BOLD, "Next\n")
        print(f"  {command} calls --lake {lake}")
        print(f"  {command} query --lake {lake} \\\n    '{_QUERY}'")
        print(f"  {command} up\n    with your own keys: base_url=http://127.0.0.1:8080/openai/v1")

    async def _wait(self, stack: Stack) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._say(_BOLD, f"\nStill running: {stack.url}/openai/v1 and {stack.url}/anthropic; Ctrl-C stops")
        await stop.wait()

    def _say(self, colour: str, text: str) -> None:
        print(self._dye(colour, text), flush=True)

    def _dye(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colored and colour != _PLAIN else text


class _Opened:
    """The records received since a moment, each opened once."""

    def __init__(self, store: Store, since: datetime) -> None:
        self._store, self._wanted = store, Filter(since=since)
        self._records: dict[str, bytes] = {}

    async def calls(self) -> list[Recorded]:
        found = await rows.newest(self._store, self._wanted, ROWS_MAX)
        for row in found:
            place = f"{row['object']}@{row['object_offset']}"
            if place not in self._records:
                self._records[place] = await record.open_record(self._store, row)
        return [Recorded(row, orjson.loads(self._records[f"{row['object']}@{row['object_offset']}"])) for row in found]


def _settings(folder: Path, provider: str) -> Settings:
    """Of `up`, with ports that are free; the user's own settings play no part."""
    return Settings(
        listen="127.0.0.1:0",
        admin="127.0.0.1:0",
        data=folder,
        default_upstream=provider,
        upstream={"openai": provider, "anthropic": provider},
        log_level="warning",
    )


def _command() -> str:
    """How the command was called, as it can be called again."""
    return "clearpane" if shutil.which("clearpane") else sys.argv[0] if sys.argv[0].endswith("clearpane") else "python -m clearpane.cli"
