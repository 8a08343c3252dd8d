"""The job queue of this machine: a worker's view of the ledger and the spool."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Work
from dicom_node.runtime.errors import LostClaim, SourceDamaged, SpoolError
from dicom_node.runtime.procfs import process_is_alive
from dicom_node.storage.destinations import Router
from dicom_node.storage.leases import Claim
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import Job, KnownContent, Outcome, State
from dicom_node.storage.spool import Spool

log = logging.getLogger(__name__)

IGNORED, IGNORED_SENTENCE = "ignored-by-rule", "A rule of this site says that this film is not ours (`show JOB` names it)."


@dataclass(frozen=True)
class LocalQueue:
    """The jobs, films and results of this node. `worker` names the group of processes that works here; `remote` is the name of
    the worker on another machine that the worker API (api/worker_server.py) acts for."""

    ledger: Ledger
    spool: Spool
    work: Work
    router: Router
    normal_waits_seconds: float
    worker: str
    remote: str | None = None

    @classmethod
    def of(cls, config: Config, worker: str, *, in_turn: bool = False) -> LocalQueue:
        """The queue that a configuration names. `in_turn`: see `Store`. Raises SpoolError, LedgerUnusable."""
        return cls(
            ledger=Ledger(config.ledger_path, in_turn=in_turn),
            spool=Spool.of(config),
            work=config.work,
            router=Router.of(config),
            normal_waits_seconds=config.queue.normal_waits_seconds,
            worker=worker,
        )

    def for_remote_worker(self, remote: str, instance: str = "") -> LocalQueue:
        """The same queue for the processes `instance` of the worker `remote` on another machine."""
        return replace(self, worker=f"{remote}/{instance}", remote=remote)

    @property
    def heartbeat_seconds(self) -> float:
        """Between two heartbeats of a claim."""
        return self.work.heartbeat_seconds

    def claim(self, pid: int | None = None, owner: str | None = None, *, beside: bool = False) -> Claim | None:
        """The next job; see `Leases.claim`. One that is not to be read (ignored by a rule, tried too often) ends here."""
        while True:
            claim = self.ledger.claim(
                self.worker,
                self.work.lease_seconds,
                normal_waits_seconds=self.normal_waits_seconds,
                pid=pid,
                remote=self.remote,
                owner=owner,
                beside=beside,
            )
            if claim is None:
                return None
            outcome = self._outcome_without_reading(claim.job)
            if outcome is None:
                return replace(claim, kinds=self.router.kinds(claim.job.arrival))
            with suppress(LostClaim):  # the film arrived again just now, to be answered
                self.ledger.finish(claim, outcome, ())

    def _outcome_without_reading(self, job: Job) -> Outcome | None:
        """The outcome of a film that is not to be read; None for every other."""
        if job.arrival.mode == "ignore":
            return Outcome(State.SKIPPED, code=IGNORED, sentence=IGNORED_SENTENCE)
        if job.attempts > self.work.max_attempts:
            sentence = f"Given up after {self.work.max_attempts} tries; `rerun` tries again."
            return Outcome(State.FAILED, code="too-many-attempts", sentence=sentence)
        return None

    def renew(self, claims: Sequence[Claim]) -> set[str]:
        """Heartbeat; the owner tokens that are no longer valid."""
        return self.ledger.renew_all([claim.owner for claim in claims], self.work.lease_seconds, self.remote)

    def release(self, claim: Claim) -> None:
        """Give the job back unchanged."""
        self.ledger.release(claim)

    def charge(self, claim: Claim, code: str, sentence: str) -> None:
        """Charge the job with a crash; after work.max_crashes it fails with `code` and `sentence`."""
        self.ledger.charge(claim, code, sentence, max_crashes=self.work.max_crashes)

    def source(self, claim: Claim) -> bytes:
        """The Part 10 file of the film. Raises SourceDamaged when it is gone or unreadable, SpoolError for the rest."""
        try:
            return self.spool.read(claim.job.arrival.path)
        except FileNotFoundError as error:
            raise SourceDamaged("The stored film is gone from the spool.") from error
        except OSError as error:
            if error.errno == errno.EIO:
                raise SourceDamaged("The stored film cannot be read: the disk reports errors.") from error
            raise SpoolError(f"a film cannot be read now ({error.strerror})") from error  # too many open files, for example

    def known(self, claim: Claim, content_sha256: str, model_digest: str) -> KnownContent:
        """What the ledger knows of this content of the film, and of its result by this model."""
        uid = claim.job.arrival.sop_instance_uid
        revision = self.ledger.revision(uid, content_sha256)
        return KnownContent(revision, self.ledger.stored_kinds(uid, content_sha256, model_digest))

    def store(self, claim: Claim, name: str, data: bytes) -> tuple[str, str]:
        """Store one object of a result: (its path in the spool, its sha256). Raises SpoolError, DiskReserve."""
        folder = self.spool.folder_for(claim.job.job_id, claim.owner)
        stored = self.spool.write_into(folder, name, data, keep_reserve=self.remote is not None)
        return stored.path, stored.sha256

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
        """Finish a job, see `Ledger.finish`. Raises LostClaim."""
        redeliver = self.work.on_resend == "redeliver"
        arrival = claim.job.arrival
        routes = self.router.routes(arrival) if arrival.mode == "live" else ()
        return self.ledger.finish(claim, outcome, routes, redeliver=redeliver)

    def close(self) -> None:
        """Close the ledger; the next use opens it again."""
        self.ledger.store.close()

    def ready(self) -> int:
        """How many jobs could be claimed now."""
        return self.ledger.ready()

    def reap(self) -> bool:
        """Release the claims of the worker's processes that died; a film that its process worked on alone is charged with a
        crash. Returns whether a running process has a film."""
        pids = self.ledger.claim_pids(self.worker)
        dead = [pid for pid in pids if not process_is_alive(pid)]
        if dead:
            self.release_dead(dead)
        return len(dead) < len(pids)

    def claimants_except(self, living: Sequence[int]) -> list[int]:
        """The processes of the worker that hold a claim and are not among the `living`."""
        return [pid for pid in self.ledger.claim_pids(self.worker) if pid not in living]

    def release_dead(self, dead: Sequence[int]) -> None:
        """Release the claims of these processes of the worker, as `reap` does. The dead are named, not the living: a living
        one may claim a film at this moment."""
        for job in self.ledger.release_worker(self.worker, dead, max_crashes=self.work.max_crashes):
            words = {"worker": self.worker, "crashes": job.crashes, "state": job.state}
            log.error("a worker process died on a film", extra=job.log_context() | words)
