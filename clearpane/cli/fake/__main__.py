"""`python -m clearpane.cli.fake --port N`: the fake provider by itself, until SIGINT or SIGTERM."""

import argparse
import asyncio
import signal

from clearpane.cli.fake import FakeProvider, Pace


async def _serve(port: int, scale: float) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with FakeProvider(port=port, pace=Pace(scale)) as provider:
        print(f"ready {provider.url}", flush=True)
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m clearpane.cli.fake", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--pace", type=float, default=1.0, metavar="SCALE", help="1: a real model's pace; 0: no delays")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.pace))


if __name__ == "__main__":
    main()
