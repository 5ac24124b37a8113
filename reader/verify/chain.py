"""One log's objects in order: each must continue the one before it. Pure."""

from dataclasses import dataclass

from clearpane.contract.lake import Head, Place, Pruned
from clearpane.contract.members import Manifest
from reader.verify.report import Finding, Kind


@dataclass(slots=True)
class Chain:
    """Feed it the log's objects by start."""

    log: str
    head: Head | None
    pruned: Pruned | None = None  # objects below its end were deleted on purpose, and are not fed
    begun: bool = False
    end: int | None = None  # of the object before; None behind one that cannot be read
    sha256: str | None = None
    key: str | None = None

    def follow(self, place: Place, manifest: Manifest | None) -> list[Finding]:
        key = place.key("calls")
        found = self._begin(place, manifest, key) if not self.begun else self._continue(place, manifest, key)
        self.begun, self.key = True, key
        self.end, self.sha256 = (None, None) if manifest is None else (max(manifest.end, self.end or 0), manifest.sha256)
        return found

    def finish(self) -> list[Finding]:
        """What only the end shows: objects that the head once saw, and that are gone."""
        if self.head is None or (self.begun and self.end is None):
            return []
        begin = self.head.genesis if self.pruned is None else self.pruned.end
        end = self.end if self.end is not None else begin
        if end >= self.head.end:
            return []
        detail = f"the log was seen to reach {self.head.end}, and its objects end at {end}"
        return [self._finding("tail", detail, self.key)]

    def _begin(self, place: Place, manifest: Manifest | None, key: str) -> list[Finding]:
        if self.pruned is not None:
            return self._begin_behind(self.pruned, place, manifest, key)
        genesis = 0 if self.log.startswith("h-") else self.head.genesis if self.head else None
        if genesis is not None and place.start != genesis:
            return [self._finding("genesis", f"the log begins at {genesis}, its first object at {place.start}", key)]
        if manifest is not None and manifest.previous_sha256 is not None:
            return [self._finding("genesis", f"the first object, from {place.start} on, states one before it that is not there", key)]
        return []

    def _begin_behind(self, pruned: Pruned, place: Place, manifest: Manifest | None, key: str) -> list[Finding]:
        if place.start != pruned.end:
            return [self._finding("genesis", f"the log was pruned up to {pruned.end}, its first object begins at {place.start}", key)]
        if manifest is not None and manifest.previous_sha256 != pruned.sha256:
            return [
                self._finding("chain", f"the last object that was pruned ({pruned.key}) is not the one that it was written behind", key)
            ]
        return []

    def _continue(self, place: Place, manifest: Manifest | None, key: str) -> list[Finding]:
        if self.end is None:
            return []
        if place.start > self.end:
            return [self._finding("gap", f"no object covers [{self.end}, {place.start}): it should follow {self.key}", key)]
        if place.start < self.end:
            return [self._finding("overlap", f"[{place.start}, {self.end}) is covered by {self.key} too", key)]
        if manifest is not None and manifest.previous_sha256 != self.sha256:
            return [self._finding("chain", f"the object before it ({self.key}) is not the one that it was written behind", key)]
        return []

    def _finding(self, kind: Kind, detail: str, key: str | None) -> Finding:
        return Finding(kind=kind, detail=detail, log=self.log, object=key)
