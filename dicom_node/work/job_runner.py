"""The story on one page: a claimed job -> its film -> the findings -> its objects, fixed on disk -> the outcome.

No Celery and no pynetdicom here: whoever rings, the work is the same. It may run twice, on two machines at once; the
identity of what it makes is derived, and the ledger lets one of them finish.
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
from segmenter.objects.kinds import Kind

if TYPE_CHECKING:
    from segmenter.engine import Film, Segmenter
    from segmenter.values import Finding

log = logging.getLogger(__name__)

DISK_TROUBLE_SECONDS = 5.0
# Failures that may be about the moment and not about the film: charged like a crash and tried again, but not for ever.
PASSING = ("out-of-memory", "internal-error")

T = TypeVar("T")


class Node(Protocol):
    """Where films come from and answers go: the ledger and spool of this machine, or a node on another one.

    Whatever says LostClaim means: another worker has the job now. NodeAway, SpoolError and sqlite3.OperationalError
    speak of the node and never of the film.
    """

    @property
    def heartbeat_seconds(self) -> float:
        """How often to renew a lease."""

    def claim(self, *, beside: bool = False) -> Claim | None:
        """The next job, or None when there is nothing to do. `beside`: the next one that nobody has tried, to be worked on
        beside others."""

    def renew(self, claims: Sequence[Claim]) -> Collection[str]:
        """Heartbeat of all of them in one go; the owner tokens of those that are lost."""

    def release(self, claim: Claim) -> None:
        """Give the job back untouched."""

    def charge(self, claim: Claim, code: str, sentence: str) -> None:
        """Charge the job with a crash and give it back; the third ends it. One that had company is not charged."""

    def source(self, claim: Claim) -> bytes:
        """The Part 10 file of the film. Raises SourceDamaged when it is gone."""

    def known(self, claim: Claim, content_sha256: str, model_digest: str) -> KnownContent:
        """What the ledger knows of this content, and of its answer by this model."""

    def store(self, claim: Claim, name: str, data: bytes) -> tuple[str, str]:
        """Fix the bytes of one object in the claim's own folder; (path, sha256)."""

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
        """End the job with its answer, in one transaction."""


@dataclass
class OnBench:
    """A film in work: what the claim promised, what was read, and the outcome as soon as there is one."""

    claim: Claim
    started: float  # monotonic seconds
    source: pydicom.FileDataset | None = None
    film: Film | None = None
    outcome: Outcome | None = None


class Heartbeat:
    """Renews the leases of all films on a bench from one thread, while the block lasts."""

    def __init__(self, node: Node, *claims: Claim) -> None:
        self._node = node
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
        self._held[claim.owner] = claim

    def drop(self, claim: Claim) -> None:
        self._held.pop(claim.owner, None)

    def _beat(self) -> None:
        while not self._done.wait(self._node.heartbeat_seconds):
            if not (claims := list(self._held.values())):
                continue
            try:
                for owner in self._node.renew(claims):
                    self._held.pop(owner, None)  # finish() will say so
            except (NodeAway, sqlite3.Error):
                pass  # the next beat may get through


@dataclass(frozen=True)
class Workbench:
    """All that one worker process needs to answer films. `read`, `forward` and `finish` may run in a thread each."""

    node: Node
    segmenter: Segmenter

    def claim(self, *, beside: bool = False) -> Claim | None:
        """The next job; None when there is none, or while the node's disk is in trouble. `beside`: other films are on the
        bench already."""
        try:
            return self.node.claim(beside=beside)
        except sqlite3.OperationalError as problem:
            log.error("no film can be claimed, they wait", extra={"error": str(problem)})
            time.sleep(DISK_TROUBLE_SECONDS)
            return None

    def stumbled(self, claim: Claim, problem: Exception) -> None:
        """An error that nobody foresaw: charged like a crash, so that it is tried again, but not for ever."""
        sentence = f"The worker met an error that it does not know ({type(problem).__name__})."
        self.node.charge(claim, "internal-error", sentence)

    def answer(self, claim: Claim) -> Job | None:
        """Answer the film and finish its job. None when the claim was lost or the node is in trouble."""
        with Heartbeat(self.node, claim):
            piece = self.read(claim)
            if piece is None:
                return None
            self.forward([piece])
            return self.finish(piece)

    def read(self, claim: Claim) -> OnBench | None:
        """Fetch, parse, gate, decode and place the film. None when the claim was lost or the node is in trouble."""
        return self._on_the_node(claim, lambda: self._read(claim))

    def forward(self, pieces: Sequence[OnBench]) -> bool:
        """One forward pass about all of them that have no outcome yet. False when the device failed one of them: it may be
        the film, and it may be that nothing works in this process any more (a lost GPU, its memory taken by others)."""
        films = [piece.film for piece in pieces if piece.film is not None and piece.film.finding is None]
        self.segmenter.forward(films)
        return not any(film.finding is not None and film.finding.code in PASSING for film in films)

    def give_back(self, claim: Claim) -> None:
        """Leave a film that was not begun to others."""
        self._on_the_node(claim, lambda: self.node.release(claim))

    def finish(self, piece: OnBench) -> Job | None:
        """Mask, objects, the bytes on disk and the end of the job. None as in `answer`."""
        job = self._on_the_node(piece.claim, lambda: self._finish(piece))
        if job is not None:
            log.info(
                "job %s",
                job.state,
                extra=job.log_context()
                | {"finding": job.finding, "code": job.code, "same_as": job.same_as, "seconds": round(job.seconds or 0, 2)},
            )
        return job

    def _on_the_node(self, claim: Claim, step: Callable[[], T]) -> T | None:
        """What goes wrong with the node is no fault of the film."""
        try:
            return step()
        except NodeAway as problem:
            # The line, not the film. Nothing is charged: the lease runs out, and whoever claims it next begins anew.
            log.error("the film is left to other workers", extra=claim.job.log_context() | {"error": str(problem)})
        except (SpoolError, sqlite3.OperationalError) as problem:
            # The node's disk, not the film: nothing is charged, and the film waits until the disk is well again.
            log.error(
                "a result cannot be written, the film waits", extra=claim.job.log_context() | {"error": type(problem).__name__}
            )
            self._give_back(claim)
        except LostClaim:
            log.warning("claim lost, another worker has the job", extra=claim.job.log_context())
        return None

    def _give_back(self, claim: Claim) -> None:
        try:
            self.node.release(claim)
        except (NodeError, sqlite3.OperationalError):
            pass  # the same trouble: the lease runs out instead
        time.sleep(DISK_TROUBLE_SECONDS)

    def _read(self, claim: Claim) -> OnBench:
        piece, uid = OnBench(claim, time.monotonic()), claim.job.arrival.sop_instance_uid
        try:
            piece.source = read_film(self.node.source(claim), claim.job)
            own_uid = str(piece.source.get("SOPInstanceUID") or uid)
        except Refused as problem:
            piece.outcome = Outcome(State.FAILED, code=problem.code, sentence=problem.sentence)
        except SourceDamaged as problem:
            piece.outcome = Outcome(State.FAILED, code="source-damaged", sentence=str(problem))
        except UNREADABLE as problem:
            sentence = f"The film cannot be read as DICOM ({type(problem).__name__})."
            piece.outcome = Outcome(State.FAILED, code="not-dicom", sentence=sentence)
        else:
            if own_uid == uid:
                piece.film = self.segmenter.read(piece.source)
            else:
                sentence = "The SOP Instance UID of the dataset is not the one that the C-STORE command named."
                piece.outcome = Outcome(State.FAILED, code="uid-mismatch", sentence=sentence)
        return piece

    def _finish(self, piece: OnBench) -> Job | None:
        claim, outcome = piece.claim, piece.outcome or process(piece, self.segmenter, self.node)
        if outcome.code in PASSING:
            log.warning("film not answered, tried again", extra=claim.job.log_context() | {"code": outcome.code})
            self.node.charge(claim, str(outcome.code), outcome.sentence or "")
            return None
        return self.node.finish(claim, outcome)


def process(piece: OnBench, segmenter: Segmenter, node: Node) -> Outcome:
    """The answer to a film that was on the device: its objects' bytes are fixed, unless it was answered before."""
    assert piece.film is not None and piece.source is not None
    claim, started, finding = piece.claim, piece.started, segmenter.decided(piece.film)
    if finding.radiograph is None or finding.decision is None:
        state = State.SKIPPED if finding.outcome == "skipped" else State.FAILED
        return Outcome(state, code=finding.code, sentence=finding.sentence, seconds=time.monotonic() - started)
    content = finding.radiograph.content_sha256
    known = node.known(claim, content, segmenter.identity.digest)
    try:
        # Known: the ledger holds the bytes that were fixed then, and sends no others of the same kind.
        kinds = [Kind(kind) for kind in claim.kinds if kind not in (known.kinds or ())]
        objects = _fix(claim, piece.source, finding, segmenter, node, known.revision, kinds)
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
    node: Node,
    revision: int,
    kinds: Sequence[Kind],
) -> tuple[StoredObject, ...]:
    """Write the objects into the claim's own folder: from now on their bytes never change. Raises Refused, SpoolError."""
    stored = []
    for one in segmenter.objects(source, finding, revision=revision, kinds=kinds):
        buffer = io.BytesIO()
        one.dataset.save_as(buffer, enforce_file_format=True)
        path, sha256 = node.store(claim, f"{one.kind}.dcm", buffer.getvalue())
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
