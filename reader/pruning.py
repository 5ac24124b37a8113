"""What was deleted from the lake on purpose: the marks that `clearpane retention` leaves."""

from clearpane.contract.lake import Pruned
from clearpane.store import NotFound, Store
from reader.lake import LakeError


async def marks(store: Store) -> dict[str, Pruned]:
    """By log, the furthest of each. Raises StoreError, LakeError."""
    found: dict[str, Pruned] = {}
    for entry in await store.list("pruned/"):
        try:
            mark = Pruned.from_json(await store.get(entry.key))
        except NotFound:
            continue  # a further one has taken its place, and was listed too or is now: the caller looks again where it must be sure
        except ValueError as error:
            raise LakeError(f"{entry.key}: {error}: restore it from a version of the bucket") from error
        if entry.key != mark.mark:
            raise LakeError(f"{entry.key} states another place: restore it from a version of the bucket")
        if mark.log not in found or found[mark.log].end < mark.end:
            found[mark.log] = mark
    return found
