"""`python -m proxy.shipper`: a child process; see clearpane.runtime.child."""

from collections.abc import Awaitable

from clearpane.runtime import child
from clearpane.runtime.child import Report
from clearpane.runtime.handover import Handover
from proxy.shipper import service


async def main(handover: Handover, report: Report, stopped: Awaitable[None]) -> None:
    report({"event": "ready"})
    await service.run(handover.settings, stopped)


if __name__ == "__main__":
    child.run(main)
