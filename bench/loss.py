"""What a gateway's log in S3 loses: LiteLLM's S3 logger and Clearpane under the same load, faults, provider and S3 server.

Each run is new: a load of chat calls, every third a stream, one fault, calls for a while after it, then a wait until every call
that its caller saw whole is in the bucket, or nothing has come for minutes. The faults are done to the network in front of the S3
server, and to the gateway's process (SIGKILL; it is started again at once). `make bench-loss` starts the S3 server.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bench import report
from bench.gateways import Clearpane, Gateway, LiteLLM
from bench.peers.install import Unavailable
from tests.e2e.system import Outcome
from tests.faults.front import Front
from tests.faults.table import PAGE, about
from tests.faults.wire import Wire

CONNECTIONS, PAUSE_S = 6, 0.05  # what a gateway in Python carries on a busy machine, too
KILLS = 5
FAULT_S = 60.0
AROUND_S = 15.0  # of load before a fault, between two, and after the last
SILENCE_S = 120.0  # nothing new in the bucket for so long: the rest will not come
POLL_S = 1.0
Make = Callable[[Path, str, str], Gateway]


@dataclass
class Scene:
    gateway: Gateway
    wire: Wire
    front: Front


Fault = Callable[[Scene], Awaitable[None]]


async def killed(scene: Scene) -> None:
    for number in range(KILLS):
        if number:
            await asyncio.sleep(AROUND_S)
        await scene.gateway.kill()


async def down(scene: Scene) -> None:
    """Connections are refused, open ones are reset."""
    scene.wire.refusing = True
    scene.wire.reset()
    await asyncio.sleep(FAULT_S)
    scene.wire.refusing = False


async def unavailable(scene: Scene) -> None:
    scene.front.add(name="503", method="", folder="", status=503)
    await asyncio.sleep(FAULT_S)
    scene.front.clear()


GATEWAYS: dict[str, Make] = {
    "litellm": partial(LiteLLM, flush_s=10, one_file=False),
    "litellm-best": partial(LiteLLM, flush_s=1, one_file=True),
    "clearpane": Clearpane,
    "clearpane-whole": partial(Clearpane, whole=True),
}
FAULTS: dict[str, tuple[str, Fault]] = {
    "killed": (f"kill -9 of the gateway, {KILLS} times", killed),
    "down": (f"S3 down for {FAULT_S:.0f} s", down),
    "503": (f"S3 answers 503 for {FAULT_S:.0f} s", unavailable),
}


@dataclass(frozen=True)
class Loss:
    gateway: str
    how: str
    fault: str
    answered: int  # calls that their caller saw whole
    lost: int
    doubled: int


async def run(make: Make, fault: str, environ: dict[str, str], name: str) -> Loss:
    words, act = FAULTS[fault]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clearpane-loss-", ignore_cleanup_errors=True)))
        front = Front(environ["AWS_ENDPOINT_URL_S3"], environ["AWS_SECRET_ACCESS_KEY"])
        await front.start()
        stack.push_async_callback(front.stop)
        wire = Wire("127.0.0.1", urlsplit(front.url).port or 0)
        await wire.start()
        stack.push_async_callback(wire.stop)
        gateway = make(folder, f"{environ['CLEARPANE_TEST_S3']}/loss-{name}-{fault}-{os.getpid()}", f"http://127.0.0.1:{wire.port}")
        stack.push_async_callback(asyncio.to_thread, gateway.stop)
        await gateway.start()
        whole = await _played(Scene(gateway, wire, front), act)
        found = await _settled(gateway, whole)
    lost, doubled = [call for call in whole if not found[call]], [call for call, count in found.items() if count > 1]
    if name == "clearpane-whole":
        words = words.replace("the gateway", "all its processes at once")
    return Loss(gateway.name, gateway.how, words, len(whole), len(lost), len(doubled))


async def _played(scene: Scene, act: Fault) -> list[str]:
    """The calls that can be lost."""
    load = scene.gateway.load
    load.connections, load.pause_s = CONNECTIONS, PAUSE_S
    loading = asyncio.create_task(load.run())
    try:
        await asyncio.sleep(AROUND_S)
        await act(scene)
        await asyncio.sleep(AROUND_S)
    finally:
        load.stopped = True
        await loading
    return answered(load.outcomes)


def answered(outcomes: dict[str, Outcome]) -> list[str]:
    """Calls that their caller saw whole."""
    return [name for name, outcome in outcomes.items() if outcome.whole and outcome.status == 200]


async def _settled(gateway: Gateway, wanted: list[str]) -> Counter[str]:
    """What is in the bucket once it has all, or nothing more comes."""
    seen, since = -1, time.monotonic()
    while True:
        found = await gateway.recorded()
        if found.total() > seen:
            seen, since = found.total(), time.monotonic()
        if all(found[call] for call in wanted) or time.monotonic() - since > SILENCE_S:
            return found
        await asyncio.sleep(POLL_S)


def table(found: list[Loss], missing: dict[str, str]) -> str:
    rows: list[tuple[str, ...]] = [("fault", "gateway", "its settings", "calls answered", "lost", "doubled")]
    rows += [(each.fault, each.gateway, each.how, f"{each.answered:,}", f"{each.lost:,}", f"{each.doubled:,}") for each in found]
    left_out = "".join(f" {name} is left out: {reason}." for name, reason in missing.items())
    return f"{report.markdown(rows)}\n\n{about()}.{left_out}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/run loss", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=lambda text: text.split(","), default=list(GATEWAYS), help=", ".join(GATEWAYS))
    parser.add_argument("--faults", type=lambda text: text.split(","), default=list(FAULTS), help=", ".join(FAULTS))
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/reliability.md")
    arguments = parser.parse_args()
    environ = dict(os.environ)
    if "CLEARPANE_TEST_S3" not in environ:
        parser.error("the S3 server is not there: `make bench-loss` starts it")
    for name in [name for name in os.environ if name.startswith("CLEARPANE_") and name != "CLEARPANE_CACHE"]:
        del os.environ[name]  # what is started must see its own settings only
    found, missing = asyncio.run(_all(arguments.gateways, arguments.faults, environ))
    shown = table(found, missing)
    print(shown)
    if arguments.write_docs:
        report.write(PAGE, "loss", shown)
    ours = [each for each in found if each.gateway == "Clearpane" and "at once" not in each.fault]
    return 1 if any(each.lost or each.doubled for each in ours) else 0


async def _all(gateways: list[str], faults: list[str], environ: dict[str, str]) -> tuple[list[Loss], dict[str, str]]:
    found: list[Loss] = []
    missing: dict[str, str] = {}
    for fault in faults:
        for name in gateways:
            if name in missing or (name == "clearpane-whole" and fault != "killed"):
                continue
            try:
                found.append(await run(GATEWAYS[name], fault, environ, name))
            except Unavailable as reason:
                missing[name] = str(reason)
                continue
            print(found[-1], file=sys.stderr, flush=True)
    return found, missing


if __name__ == "__main__":
    sys.exit(main())
