"""The shipper's disk: bodies that unpack to much, journals that cannot be written, records that are gone."""

import asyncio
import errno
import gzip
import os
from typing import Any

import pytest

from proxy.shipper import journal, tail


async def test_bodies_that_unpack_to_much_come_in_portions(lab: Any, intake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_BUILD_BYTES_MAX", 150_000)
    worker = lab.worker()
    text = b'{"text":"' + b"all the same " * 4000 + b'"}'
    for _ in range(60):
        worker.call(response=gzip.compress(text), content_encoding="gzip")
    await worker.written()
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 60)
    assert [record["request_id"] for record in intake.records] == worker.ids
    assert {record["response"]["body"] for record in intake.records} == {text.decode()}


async def test_while_the_journal_cannot_be_written_nothing_is_sent(lab: Any, intake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = lab.worker()
    refusing = True
    write = os.write

    def refuse(descriptor: int, data: bytes) -> int:
        if refusing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    async with lab.shipping(lab.posting(intake)):
        worker.call()
        await lab.until(lambda: len(intake.records) == 1)
        monkeypatch.setattr(journal.os, "write", refuse)
        for _ in range(10):
            worker.call()
        await asyncio.sleep(1.5)
        assert len(intake.records) == 1
        refusing = False
        await lab.until(lambda: len(intake.records) == 11)
    assert [record["request_id"] for record in intake.records] == worker.ids


async def numbered_but_not_sent(lab: Any, intake: Any) -> Any:
    """Five records with HTTP numbers in the journal, none of them at the intake; the worker is dead."""
    worker = lab.worker()
    async with lab.shipping(lab.settings(intake="http://127.0.0.1:9", intake_secret=lab.secret)):
        for number in range(5):
            worker.call(response=b"record-%d" % number)
        folder = lab.data / "spool" / worker.spool.spool_id
        await lab.until(lambda: b"".join(path.read_bytes() for path in folder.glob("journal/*")).count(b'["h"') >= 5)
    worker.die()
    return worker


async def test_a_damaged_record_keeps_its_place_in_the_sequence(lab: Any, intake: Any) -> None:
    worker = await numbered_but_not_sent(lab, intake)
    (segment,) = (lab.data / "spool" / worker.spool.spool_id).glob("*.seg")
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b"record-2", b"RECORD-2"))
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 5)
        await lab.until(lambda: not list((lab.data / "spool").iterdir()))
    assert [record["request_id"] for record in intake.records] == worker.ids
    assert [record["response"]["end"] for record in intake.records] == ["complete"] * 2 + ["interrupted"] + ["complete"] * 2


async def test_records_whose_segment_is_gone_keep_their_places(lab: Any, intake: Any) -> None:
    worker = await numbered_but_not_sent(lab, intake)
    (segment,) = (lab.data / "spool" / worker.spool.spool_id).glob("*.seg")
    segment.unlink()
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 5)
        await lab.until(lambda: not list((lab.data / "spool").iterdir()))
    assert [record["request_id"] for record in intake.records] == worker.ids
    assert {record["response"]["error"]["type"] for record in intake.records} == {"record_lost"}


async def test_a_lost_journal_sends_again_and_loses_nothing(lab: Any, intake: Any) -> None:
    worker = await numbered_but_not_sent(lab, intake)
    for path in (lab.data / "spool" / worker.spool.spool_id / "journal").iterdir():
        path.write_bytes(b"\0" * path.stat().st_size)
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 5)
    assert [record["request_id"] for record in intake.records] == worker.ids


async def test_a_frame_that_is_no_record_is_dropped_and_counted(lab: Any, intake: Any) -> None:
    worker = lab.worker()
    worker.call()
    worker.spool.completed(worker.spool.admit(b"no JSON"), b'{"not": "facts"}', b"", b"")
    worker.call()
    async with lab.shipping(lab.posting(intake)):
        await lab.until(lambda: len(intake.records) == 2)
        worker.die()
        await lab.until(lambda: not list((lab.data / "spool").iterdir()))
    assert [record["request_id"] for record in intake.records] == worker.ids
