"""The node of this machine, as a worker sees it: its ledger and its spool."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from dicom_node.runtime.config import Config, Work
from dicom_node.runtime.errors import LostClaim, SourceDamaged, SpoolError
from dicom_node.runtime.procfs import process_is_alive
from dicom_node.storage.destinations import Router
from dicom_node.storage.leases import Claim
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import Job, Known, Outcome, State
from dicom_node.storage.spool import Spool

log = logging.getLogger(__name__)

IGNORED, IGNORED_SENTENCE = "ignored-by-rule", "A rule of this site says that this film is not ours (`show JOB` names it)."


@dataclass(frozen=True)
class LocalNode:
    """See `process.Node`. `worker` names the group of processes that works here; `remote` the machine it works on, when
    that is another one and this object stands in for it (api/worker_server.py)."""

    ledger: Ledger
    spool: Spool
    work: Work
    router: Router
    normal_waits_seconds: float
    worker: str
    remote: str | None = None

    @classmethod
    def of(cls, config: Config, worker: str, *, in_turn: bool = False) -> LocalNode:
        """`in_turn`: see `Store`."""
        return cls(
            ledger=Ledger(config.ledger_path, in_turn=in_turn),
            spool=Spool.of(config),
            work=config.work,
            router=Router.of(config),
            normal_waits_seconds=config.queue.normal_waits_seconds,
            worker=worker,
        )

    def far(self, remote: str, instance: str = "") -> LocalNode:
        """The same, standing in for the processes `instance` of a worker on another machine."""
        return replace(self, worker=f"{remote}/{instance}", remote=remote)

    @property
    def heartbeat_seconds(self) -> float:
        return self.work.heartbeat_seconds

    def claim(self, pid: int | None = None, owner: str | None = None, *, beside: bool = False) -> Claim | None:
        """The next job. One that has been tried too often ends here."""
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
            outcome = self._outcome_unread(claim.job)
            if outcome is None:
                return replace(claim, kinds=self.router.kinds(claim.job.arrival))
            with suppress(LostClaim):  # it came again at this moment, to be answered
                self.ledger.finish(claim, outcome, ())

    def _outcome_unread(self, job: Job) -> Outcome | None:
        """How a film ends that nobody is to look at."""
        if job.arrival.mode == "ignore":
            return Outcome(State.SKIPPED, code=IGNORED, sentence=IGNORED_SENTENCE)
        if job.attempts > self.work.max_attempts:
            sentence = f"Given up after {self.work.max_attempts} tries; `rerun` tries again."
            return Outcome(State.FAILED, code="too-many-attempts", sentence=sentence)
        return None

    def renew(self, claims: Sequence[Claim]) -> set[str]:
        return self.ledger.renew_all([claim.owner for claim in claims], self.work.lease_seconds, self.remote)

    def release(self, claim: Claim) -> None:
        self.ledger.release(claim)

    def charge(self, claim: Claim, code: str, sentence: str) -> None:
        self.ledger.charge(claim, code, sentence, max_crashes=self.work.max_crashes)

    def source(self, claim: Claim) -> bytes:
        try:
            return self.spool.read(claim.job.arrival.path)
        except FileNotFoundError as error:
            raise SourceDamaged("The stored film is gone from the spool.") from error
        except OSError as error:
            if error.errno == errno.EIO:
                raise SourceDamaged("The stored film cannot be read: the disk is not sound.") from error
            raise SpoolError(f"a film cannot be read now ({error.strerror})") from error  # too many open files, for one

    def known(self, claim: Claim, content_sha256: str, model_digest: str) -> Known:
        uid = claim.job.arrival.sop_instance_uid
        revision = self.ledger.revision(uid, content_sha256)
        answer = self.ledger.answer(uid, content_sha256, model_digest)
        return Known(revision, None if answer is None else answer.kinds)

    def store(self, claim: Claim, name: str, data: bytes) -> tuple[str, str]:
        folder = self.spool.folder_for(claim.job.job_id, claim.owner)
        stored = self.spool.write_into(folder, name, data, keep_reserve=self.remote is not None)
        return stored.path, stored.sha256

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
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
        """Free the claims of our processes that died; a film that was alone on its bench is charged with a crash. Returns
        whether a living one has a film."""
        pids = self.ledger.claim_pids(self.worker)
        dead = [pid for pid in pids if not process_is_alive(pid)]
        if dead:
            self.bury(dead)
        return len(dead) < len(pids)

    def others_than(self, living: Sequence[int]) -> list[int]:
        """The processes of the worker that hold a claim and are not among the `living`."""
        return [pid for pid in self.ledger.claim_pids(self.worker) if pid not in living]

    def bury(self, dead: Sequence[int]) -> None:
        """Free the claims of these processes of the worker, as `reap`. The dead are named, not the living: one of
        those may claim a film at this moment."""
        for job in self.ledger.release_worker(self.worker, dead, max_crashes=self.work.max_crashes):
            words = {"worker": self.worker, "crashes": job.crashes, "state": job.state}
            log.error("a worker process died on a film", extra=job.log_context() | words)
