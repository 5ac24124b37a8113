"""`python -m consumer`: the consumer on its own, from the settings of this folder and its environment."""

import asyncio
import logging
import signal
import sys

from clearpane.runtime import logs
from clearpane.settings import SettingsError, environment, load
from clearpane.store import StoreError
from consumer.derive import BadOverlay
from consumer.lake.probe import NotConditional
from consumer.service import NothingToDo, run
from consumer.sources.intake import UnsafeAddress

log = logging.getLogger("consumer")


async def _until_signalled() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def main() -> int:
    """0: stopped as asked. 1: cannot run, said in words. 2: settings."""
    try:
        settings = load({}, environment())
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logs.start(settings.log_level)
    try:
        asyncio.run(run(settings, _until_signalled(), lambda event: log.info("%s", event["event"])))
    except (NothingToDo, BadOverlay, NotConditional, UnsafeAddress, StoreError, OSError) as error:
        log.critical("the consumer cannot run: %s", str(error) or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
