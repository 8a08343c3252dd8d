"""One job: a claimed job -> its film -> the findings -> its objects, fixed on disk -> the outcome.

No Celery and no pynetdicom here: the work is the same, whoever sends the wake-up. It may run twice, on two machines at once;
the identity of what it makes is derived, and the ledger lets one of them finish.
"""

from __future__ import annotations

import io
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import pydicom

from dicom_node.runtime.errors import LostClaim, NodeAway, NodeError, SourceDamaged, SpoolError
from dicom_node.runtime.threads import EssentialThread
from dicom_node.storage.leases import Claim
from dicom_node.storage.part10 import UNREADABLE, read_film
from dicom_node.storage.records import INDETERMINATE, Job, KnownContent, Outcome, State, StoredObject
from segmenter.errors import Refused
from segmenter.objects.kinds import ObjectKind

if TYPE_CHECKING:
    from segmenter.engine import Film, Segmenter
    from segmenter.values import Finding

log = logging.getLogger(__name__)

DISK_TROUBLE_SECONDS = 5.0
# Failures that need not be the film's fault: charged like a crash and tried again, but not for ever.
TRANSIENT = ("out-of-memory", "internal-error")

T = TypeVar("T")


class JobQueue(Protocol):
    """Where films come from and answers go: the ledger and spool of this machine, or a node on another one.

    LostClaim, from any of these: another worker has the job now. NodeAway, SpoolError and sqlite3.OperationalError are about
    the node and never about the film.
    """

    @property
    def heartbeat_seconds(self) -> float:
        """How often to renew a lease."""

    def claim(self, *, beside: bool = False) -> Claim | None:
        """The next job, or None when there is nothing to do. `beside`: the next one that nobody has tried, to be worked on
        beside others."""

    def renew(self, claims: Sequence[Claim]) -> Collection[str]:
        """Renew all these leases at once; the owner tokens of those that are lost."""

    def release(self, claim: Claim) -> None:
        """Give the job back untouched."""

    def charge(self, claim: Claim, code: str, sentence: str) -> None:
        """Charge the job with a crash and give it back; the crash that reaches work.max_crashes ends it. A job that was worked
        on beside others is not charged."""

    def source(self, claim: Claim) -> bytes:
        """The Part 10 file of the film. Raises SourceDamaged when it is gone."""

    def known(self, claim: Claim, content_sha256: str, model_digest: str) -> KnownContent:
        """What the ledger knows of this content, and of its answer by this model."""

    def store(self, claim: Claim, name: str, data: bytes) -> tuple[str, str]:
        """Fix the bytes of one object in the claim's own folder; (path, sha256)."""

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
        """End the job with its answer, in one transaction."""


@dataclass
class FilmInWork:
    """What the claim promised, what was read, and the outcome as soon as there is one."""

    claim: Claim
    started: float  # monotonic seconds
    source: pydicom.FileDataset | None = None
    prepared: Film | None = None  # decoded and placed by the segmenter
    outcome: Outcome | None = None


class Heartbeat:
    """Renews the leases of all films in work from one thread, while the block lasts."""

    def __init__(self, queue: JobQueue, *claims: Claim) -> None:
        self._queue = queue
        self._held = {claim.owner: claim for claim in claims}
        self._done = threading.Event()
        self._thread = EssentialThread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, claim: Claim) -> None:
        """Renew this lease too."""
        self._held[claim.owner] = claim

    def drop(self, claim: Claim) -> None:
        """Renew it no more: its job ended or was released."""
        self._held.pop(claim.owner, None)

    def _beat(self) -> None:
        while not self._done.wait(self._queue.heartbeat_seconds):
            if not (claims := list(self._held.values())):
                continue
            try:
                for owner in self._queue.renew(claims):
                    self._held.pop(owner, None)  # finish() raises LostClaim
            except (NodeAway, sqlite3.Error):
                pass  # the next renewal may get through


@dataclass(frozen=True)
class JobRunner:
    """All that one worker process needs to answer films. `read`, `forward` and `finish` may run in a thread each."""

    queue: JobQueue
    segmenter: Segmenter

    def claim(self, *, beside: bool = False) -> Claim | None:
        """The next job; None when there is none, or while the node's disk is in trouble. `beside`: other films are in work
        already."""
        try:
            return self.queue.claim(beside=beside)
        except sqlite3.OperationalError as problem:
            log.error("no film can be claimed, they wait", extra={"error": str(problem)})
            time.sleep(DISK_TROUBLE_SECONDS)
            return None

    def record_crash(self, claim: Claim, problem: Exception) -> None:
        """Charge an unforeseen error like a crash: the film is tried again, but not for ever."""
        sentence = f"The worker met an unexpected error ({type(problem).__name__})."
        self.queue.charge(claim, "internal-error", sentence)

    def answer(self, claim: Claim) -> Job | None:
        """Answer the film and finish its job. None when the claim was lost or the node is in trouble."""
        with Heartbeat(self.queue, claim):
            film = self.read(claim)
            if film is None:
                return None
            self.forward([film])
            return self.finish(film)

    def read(self, claim: Claim) -> FilmInWork | None:
        """Fetch, parse, gate, decode and place the film. None when the claim was lost or the node is in trouble."""
        return self._guarded(claim, lambda: self._read(claim))

    def forward(self, films: Sequence[FilmInWork]) -> bool:
        """One forward pass over all of them that have no outcome yet. False when the device failed on one of them: that may be
        the film's fault, or nothing works in this process any more (a lost GPU, its memory taken by others)."""
        undecided = [one.prepared for one in films if one.prepared is not None and one.prepared.finding is None]
        self.segmenter.forward(undecided)
        return not any(one.finding is not None and one.finding.code in TRANSIENT for one in undecided)

    def give_back(self, claim: Claim) -> None:
        """Release a film that was not begun."""
        self._guarded(claim, lambda: self.queue.release(claim))

    def finish(self, film: FilmInWork) -> Job | None:
        """Mask, objects, the bytes on disk and the end of the job. None as in `answer`."""
        job = self._guarded(film.claim, lambda: self._finish(film))
        if job is not None:
            log.info(
                "job %s",
                job.state,
                extra=job.log_context()
                | {"finding": job.finding, "code": job.code, "same_as": job.same_as, "seconds": round(job.seconds or 0, 2)},
            )
        return job

    def _guarded(self, claim: Claim, step: Callable[[], T]) -> T | None:
        """What goes wrong with the node is not the film's fault."""
        try:
            return step()
        except NodeAway as problem:
            # The connection, not the film. Nothing is charged: the lease runs out, and the next claim begins anew.
            log.error("the film is left to other workers", extra=claim.job.log_context() | {"error": str(problem)})
        except (SpoolError, sqlite3.OperationalError) as problem:
            # The node's disk, not the film: nothing is charged, and the film waits until the disk is well again.
            log.error(
                "a result cannot be written, the film waits", extra=claim.job.log_context() | {"error": type(problem).__name__}
            )
            self._release_later(claim)
        except LostClaim:
            log.warning("claim lost, another worker has the job", extra=claim.job.log_context())
        return None

    def _release_later(self, claim: Claim) -> None:
        try:
            self.queue.release(claim)
        except (NodeError, sqlite3.OperationalError):
            pass  # the same trouble: the lease runs out instead
        time.sleep(DISK_TROUBLE_SECONDS)

    def _read(self, claim: Claim) -> FilmInWork:
        film, uid = FilmInWork(claim, time.monotonic()), claim.job.arrival.sop_instance_uid
        try:
            film.source = read_film(self.queue.source(claim), claim.job)
            own_uid = str(film.source.get("SOPInstanceUID") or uid)
        except Refused as problem:
            film.outcome = Outcome(State.FAILED, code=problem.code, sentence=problem.sentence)
        except SourceDamaged as problem:
            film.outcome = Outcome(State.FAILED, code="source-damaged", sentence=str(problem))
        except UNREADABLE as problem:
            sentence = f"The film cannot be read as DICOM ({type(problem).__name__})."
            film.outcome = Outcome(State.FAILED, code="not-dicom", sentence=sentence)
        else:
            if own_uid == uid:
                film.prepared = self.segmenter.read(film.source)
            else:
                sentence = "The SOP Instance UID of the dataset is not the one that the C-STORE command named."
                film.outcome = Outcome(State.FAILED, code="uid-mismatch", sentence=sentence)
        return film

    def _finish(self, film: FilmInWork) -> Job | None:
        claim, outcome = film.claim, film.outcome or outcome_of(film, self.segmenter, self.queue)
        if outcome.code in TRANSIENT:
            log.warning("film not answered, tried again", extra=claim.job.log_context() | {"code": outcome.code})
            self.queue.charge(claim, str(outcome.code), outcome.sentence or "")
            return None
        return self.queue.finish(claim, outcome)


def outcome_of(film: FilmInWork, segmenter: Segmenter, queue: JobQueue) -> Outcome:
    """The answer to a film that was on the device. Its objects' bytes are fixed, unless it was answered before.

    Raises what the job queue raises."""
    assert film.prepared is not None and film.source is not None
    claim, started, finding = film.claim, film.started, segmenter.decide(film.prepared)
    if finding.radiograph is None or finding.decision is None:
        state = State.SKIPPED if finding.outcome == "skipped" else State.FAILED
        return Outcome(state, code=finding.code, sentence=finding.sentence, seconds=time.monotonic() - started)
    content = finding.radiograph.content_sha256
    known = queue.known(claim, content, segmenter.identity.digest)
    try:
        # Known: the ledger holds the bytes that were fixed then, and sends no others of the same kind.
        kinds = [ObjectKind(kind) for kind in claim.kinds if kind not in (known.kinds or ())]
        objects = _fix(claim, film.source, finding, segmenter, queue, known.revision, kinds)
    except Refused as problem:
        seconds = time.monotonic() - started
        return Outcome(State.FAILED, code=problem.code, sentence=problem.sentence, seconds=seconds)
    return Outcome(
        State.SEGMENTED,
        code=finding.code,
        sentence=finding.sentence,
        finding=finding.name or INDETERMINATE,
        probability=finding.decision.image_probability,
        area_mm2=finding.decision.area_mm2,
        content_sha256=content,
        model=f"{segmenter.identity.name} {segmenter.identity.version}",
        model_digest=segmenter.identity.digest,
        revision=known.revision,
        seconds=time.monotonic() - started,
        objects=objects,
        notes=tuple(str(note) for note in finding.radiograph.notes),
        threshold=finding.decision.image_threshold,
    )


def _fix(
    claim: Claim,
    source: pydicom.FileDataset,
    finding: Finding,
    segmenter: Segmenter,
    queue: JobQueue,
    revision: int,
    kinds: Sequence[ObjectKind],
) -> tuple[StoredObject, ...]:
    """Write the objects into the claim's own folder: from now on their bytes never change. Raises Refused, SpoolError."""
    stored = []
    for one in segmenter.objects(source, finding, revision=revision, kinds=kinds):
        buffer = io.BytesIO()
        one.dataset.save_as(buffer, enforce_file_format=True)
        path, sha256 = queue.store(claim, f"{one.kind}.dcm", buffer.getvalue())
        stored.append(
            StoredObject(
                role=one.role,
                variant=one.variant,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
                sha256=sha256,
                path=path,
                size=buffer.tell(),
                intended_use="demo" if segmenter.identity.demo else "research",
            )
        )
    return tuple(stored)
