"""The child's side of a parent and its children.

Standard input brings one line, the handover, and then stays open as the life line: its end means that the
parent is gone, whatever killed it, and the child begins its graceful stop. Standard output takes reports
to the parent, one JSON object per line.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import orjson

from clearpane.runtime import logs
from clearpane.runtime.handover import Handover
from clearpane.settings import Settings

# A report is a few hundred bytes; what the parent has not read beyond this is dropped: it is a view, not a record.
_REPORT_BACKLOG_BYTES_MAX = 1 << 20

# Exit code of a child that cannot run with these settings: its parent does not start it again (sysexits.h, EX_CONFIG).
REFUSED = 78

log = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]


def receive() -> Handover:
    """Blocks until the parent has written the handover. Raises EOFError if there is no parent."""
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError("this program is started by `clearpane`, which hands it its settings")
    handover = Handover.from_line(line)
    logs.start(handover.settings.log_level)
    return handover


async def until_stopped() -> None:
    """Returns on SIGTERM, SIGINT, or when the parent is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    transport, _ = await loop.connect_read_pipe(lambda: _LifeLine(stop), sys.stdin)
    try:
        await stop.wait()
    finally:
        transport.close()


class _LifeLine(asyncio.Protocol):
    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop.set()

    def eof_received(self) -> None:
        self._stop.set()


class Reporter:
    """Writes reports to the parent without ever waiting for it."""

    def __init__(self) -> None:
        self.dropped = 0
        self._backlog = bytearray()
        self._fd = sys.stdout.fileno()
        os.set_blocking(self._fd, False)

    def __call__(self, event: dict[str, Any]) -> None:
        line = orjson.dumps(event, default=str) + b"\n"
        if len(self._backlog) + len(line) > _REPORT_BACKLOG_BYTES_MAX:
            self.dropped += 1
            return
        self._backlog += line
        self._write()

    def _write(self) -> None:
        try:
            written = os.write(self._fd, self._backlog)
        except BlockingIOError:
            return
        except OSError:  # the parent is gone: the life line says so
            self._backlog.clear()
            return
        del self._backlog[:written]


def run(
    main: Callable[[Handover, Report, Awaitable[None]], Awaitable[None]],
    refusals: tuple[type[Exception], ...] = (),
    loop_of: Callable[[Settings], asyncio.AbstractEventLoop] = lambda settings: asyncio.new_event_loop(),
) -> None:
    """The whole life of a child: receive, run until stopped, leave.

    Exit code 0 after a clean stop; REFUSED when `main` raised one of `refusals`, which a restart would not mend.
    """
    handover = receive()
    report = Reporter()

    async def life() -> None:
        stopped = asyncio.ensure_future(until_stopped())
        await asyncio.sleep(0)  # from here on a signal is heard, also by a part that is still starting
        try:
            await main(handover, report, stopped)
        finally:
            stopped.cancel()
            await asyncio.gather(stopped, return_exceptions=True)

    code = 0
    try:
        with asyncio.Runner(loop_factory=lambda: loop_of(handover.settings)) as runner:
            runner.run(life())
    except refusals as refusal:
        log.critical("%s", refusal)
        code = REFUSED
    leave(code)


def leave(code: int) -> NoReturn:
    """Ends the process with nothing left to run: threads of obstore and pyarrow can abort an interpreter that is torn down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
