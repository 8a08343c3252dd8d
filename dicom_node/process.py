"""The story on one page: a claimed job -> its film -> the findings -> its objects, fixed on disk -> the outcome.

No Celery and no pynetdicom here: whoever rings, the work is the same. It may run twice, on two machines at once; the
identity of what it makes is derived, and the ledger lets one of them finish.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_node.config import Work
from dicom_node.errors import LostClaim, SourceDamaged, SpoolError
from dicom_node.job import Job, Outcome, State, StoredObject
from dicom_node.ledger import Claim, Ledger
from dicom_node.spool import Spool
from segmenter.errors import Refused

if TYPE_CHECKING:
    from segmenter.engine import Segmenter
    from segmenter.values import Finding

log = logging.getLogger(__name__)

DISK_TROUBLE_SECONDS = 5.0
# Failures that may be about the moment and not about the film: charged like a crash and tried again, but not for ever.
PASSING = ("out-of-memory", "internal-error")
MAX_INFLATED_BYTES = 512 * 2**20

# What pydicom raises on bytes that are no dataset.
UNREADABLE = (
    InvalidDicomError, BytesLengthException, OSError, ValueError, EOFError, NotImplementedError, struct.error, LookupError,
    TypeError, AttributeError, RecursionError, OverflowError, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Workbench:
    """All that one worker process needs to answer films."""

    ledger: Ledger
    spool: Spool
    segmenter: Segmenter
    work: Work
    destinations: tuple[str, ...]
    name: str  # of the worker whose process this is

    def claim(self) -> Claim | None:
        """The next job, or None when there is nothing to do."""
        return self.ledger.claim(self.name, self.work.lease_seconds)

    def stumbled(self, claim: Claim, problem: Exception) -> None:
        """An error that nobody foresaw: charged like a crash, so that it is tried again, but not for ever."""
        sentence = f"The worker met an error that it does not know ({type(problem).__name__})."
        self.ledger.charge(claim, "internal-error", sentence, max_crashes=self.work.max_crashes)

    def answer(self, claim: Claim) -> Job | None:
        """Answer the film and finish its job. None when the claim was lost or our disk is in trouble."""
        try:
            with self._heartbeat(claim):
                outcome = self._outcome(claim)
            if outcome.code in PASSING:
                log.warning("film not answered, tried again", extra=claim.job.log_context() | {"code": outcome.code})
                self.ledger.charge(claim, str(outcome.code), outcome.sentence or "", max_crashes=self.work.max_crashes)
                return None
            job = self.ledger.finish(claim, outcome, self.destinations, redeliver=self.work.on_resend == "redeliver")
        except (SpoolError, sqlite3.OperationalError) as problem:
            # Our disk, not the film: nothing is charged, and the film waits until the disk is well again.
            log.error(
                "a result can not be written, the film waits", extra=claim.job.log_context() | {"error": type(problem).__name__}
            )
            self.ledger.release(claim)
            time.sleep(DISK_TROUBLE_SECONDS)
            return None
        except LostClaim:
            log.warning("claim lost, another worker has the job", extra=claim.job.log_context())
            return None
        log.info(
            "job %s",
            job.state,
            extra=job.log_context()
            | {"finding": job.finding, "code": job.code, "same_as": job.same_as, "seconds": job.seconds},
        )
        return job

    def _outcome(self, claim: Claim) -> Outcome:
        if claim.job.attempts > self.work.max_attempts:
            sentence = f"Given up after {self.work.max_attempts} tries; `rerun` tries again."
            return Outcome(State.FAILED, code="too-many-attempts", sentence=sentence)
        started, uid = time.monotonic(), claim.job.arrival.sop_instance_uid
        try:
            source = read_source(self.spool, claim.job)
            own_uid = str(source.get("SOPInstanceUID") or uid)
        except Refused as problem:
            return Outcome(State.FAILED, code=problem.code, sentence=problem.sentence)
        except SourceDamaged as problem:
            return Outcome(State.FAILED, code="source-damaged", sentence=str(problem))
        except UNREADABLE as problem:
            sentence = f"The film can not be read as DICOM ({type(problem).__name__})."
            return Outcome(State.FAILED, code="not-dicom", sentence=sentence)
        if own_uid != uid:
            sentence = "The SOP Instance UID of the dataset is not the one that the C-STORE command named."
            return Outcome(State.FAILED, code="uid-mismatch", sentence=sentence)
        return process(claim, source, self.segmenter, self.ledger, self.spool, started)

    @contextmanager
    def _heartbeat(self, claim: Claim) -> Iterator[None]:
        """Renew the lease from a thread while the film is worked on."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self.work.heartbeat_seconds):
                try:
                    self.ledger.renew(claim, self.work.lease_seconds)
                except LostClaim:
                    return  # finish() will say so

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def read_source(spool: Spool, job: Job) -> pydicom.FileDataset:
    """The film of a job.

    Raises SourceDamaged when it is not what arrived, Refused when it would inflate beyond reason, and UNREADABLE when it
    is no DICOM.
    """
    try:
        data = spool.read(job.arrival.path)
    except FileNotFoundError as error:
        raise SourceDamaged("The stored film is gone from the spool.") from error
    if dataset_sha256(data) != job.arrival.dataset_sha256:
        raise SourceDamaged("The stored film does not have the sha256 with which it arrived: the disk is not sound.")
    if job.arrival.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        _refuse_bomb(data)
    return pydicom.dcmread(io.BytesIO(data))


def _refuse_bomb(part10: bytes) -> None:
    """A deflated dataset of some kilobytes may inflate to any size: look before pydicom does it (PS3.5 A.5)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated, rest = 0, bytes(_dataset_bytes(part10))
    while rest and not inflater.eof:
        try:
            inflated += len(inflater.decompress(rest, 16 * 1024 * 1024))
        except zlib.error:
            return  # pydicom says it better
        if inflated > MAX_INFLATED_BYTES:
            raise Refused("absurd-size", f"The deflated dataset inflates to more than {MAX_INFLATED_BYTES // 2**20} MiB.")
        rest = inflater.unconsumed_tail


def dataset_sha256(part10: bytes) -> str:
    """sha256 of the dataset of a Part 10 file that we wrote."""
    return hashlib.sha256(_dataset_bytes(part10)).hexdigest()


def _dataset_bytes(part10: bytes) -> memoryview:
    """All that follows the File Meta group (PS3.10 7.1): 128 bytes preamble, DICM, (0002,0000) UL with the group's length."""
    return memoryview(part10)[144 + int.from_bytes(part10[140:144], "little") :]


def process(
    claim: Claim, source: pydicom.FileDataset, segmenter: Segmenter, ledger: Ledger, spool: Spool, started: float
) -> Outcome:
    """Segment the film and fix the bytes of its objects, unless the same film was answered before."""
    [finding] = segmenter.segment([source])
    if finding.outcome != "done" or finding.radiograph is None or finding.decision is None:
        state = State.SKIPPED if finding.outcome == "skipped" else State.FAILED
        return Outcome(state, code=finding.code, sentence=finding.sentence, seconds=time.monotonic() - started)
    uid, content = claim.job.arrival.sop_instance_uid, finding.radiograph.content_sha256
    revision = ledger.revision(uid, content)
    known = ledger.answer(uid, content, segmenter.identity.digest)
    try:
        objects = known.objects if known else _fix(claim, source, finding, segmenter, spool, revision)
    except Refused as problem:
        seconds = time.monotonic() - started
        return Outcome(State.FAILED, code=problem.code, sentence=problem.sentence, seconds=seconds)
    return Outcome(
        State.SEGMENTED,
        finding=finding.name,
        probability=finding.decision.image_probability,
        area_mm2=finding.decision.area_mm2,
        content_sha256=content,
        model=f"{segmenter.identity.name} {segmenter.identity.version}",
        model_digest=segmenter.identity.digest,
        revision=revision,
        seconds=time.monotonic() - started,
        objects=objects,
    )


def _fix(
    claim: Claim, source: pydicom.FileDataset, finding: Finding, segmenter: Segmenter, spool: Spool, revision: int
) -> tuple[StoredObject, ...]:
    """Write the objects into the claim's own folder: from now on their bytes never change. Raises Refused, SpoolError."""
    stored = []
    folder = spool.folder_for(claim.job.job_id, claim.owner)
    for one in segmenter.objects(source, finding, revision=revision):
        buffer = io.BytesIO()
        one.dataset.save_as(buffer, enforce_file_format=True)
        file = spool.write_into(folder, f"{PurePosixPath(one.role).name}{one.variant}.dcm", buffer.getvalue())
        stored.append(
            StoredObject(
                role=one.role,
                variant=one.variant,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
                sha256=file.sha256,
                path=file.path,
                size=file.size,
                intended_use="demo" if segmenter.identity.demo else "research",
            )
        )
    return tuple(stored)
