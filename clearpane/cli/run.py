"""`clearpane up`, `clearpane proxy`, `clearpane consumer`: the processes, until they are told to stop."""

import argparse
import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from clearpane.cli.flags import add_settings
from clearpane.cli.line import Line
from clearpane.cli.stack import Stack
from clearpane.runtime import logs
from clearpane.settings import Settings

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse gives its type no other name

_PROXY_FLAGS = ("listen", "admin", "default_upstream", "upstream", "data", "kafka", "topic", "intake", "workers", "loop", "flush_seconds")


def register(commands: "Commands") -> None:
    up = commands.add_parser("up", help="proxy, shipper and consumer on one machine, records in a local folder")
    add_settings(up, *_PROXY_FLAGS, "lake")
    up.add_argument("--quiet", action="store_true", help="no line per finished call")
    up.set_defaults(run=_up)
    proxy = commands.add_parser("proxy", help="the proxy: workers and shipper")
    add_settings(proxy, *_PROXY_FLAGS, "spool_only")
    proxy.set_defaults(run=_proxy)
    consumer = commands.add_parser("consumer", help="the consumer: envelopes in, records in the lake")
    add_settings(consumer, "admin", "data", "lake", "kafka", "topic", "intake", "flush_seconds")
    consumer.set_defaults(run=_consumer)


def _up(arguments: argparse.Namespace, settings: Settings) -> int:
    line = None if arguments.quiet else Line(sys.stdout)
    return _run(settings, proxy=True, consumer=True, watch=line)


def _proxy(arguments: argparse.Namespace, settings: Settings) -> int:
    return _run(settings, proxy=True, consumer=False)


def _consumer(arguments: argparse.Namespace, settings: Settings) -> int:
    return _run(settings, proxy=False, consumer=True)


def _run(settings: Settings, *, proxy: bool, consumer: bool, watch: Line | None = None) -> int:
    logs.start(settings.log_level)
    with contextlib.suppress(asyncio.CancelledError):  # told to stop before it was ready
        asyncio.run(_serve(settings, proxy=proxy, consumer=consumer, watch=watch))
    return 0


async def _serve(settings: Settings, *, proxy: bool, consumer: bool, watch: Line | None) -> None:
    loop = asyncio.get_running_loop()
    serving = asyncio.current_task()
    assert serving is not None
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, serving.cancel)
    async with Stack(settings, proxy=proxy, consumer=consumer, watch=watch) as stack:
        stop = asyncio.Event()
        for number in signals:
            loop.add_signal_handler(number, stop.set)
        print(f"ready {stack.url}".rstrip(), flush=True)
        if watch is not None:
            print(f"records in {stack.lake}; Ctrl-C stops", flush=True)
        await stack.serve(stop)
        for number in signals:
            loop.remove_signal_handler(number)  # a second Ctrl-C ends it at once: the spool has everything
