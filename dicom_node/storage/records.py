"""The records of the ledger as frozen values: arrivals, jobs, results, deliveries; and their legal transitions.

A job is one received film:

    received -> claimed -> segmented | skipped | failed        (and back to received: lease expired, process died)

A delivery is one object for one destination:

    pending -> sent -> delivered | refused                     (and back to pending: to be tried again, or not committed to)
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, fields
from enum import StrEnum

from segmenter.objects.kinds import kind_of


class State(StrEnum):
    """Of a job."""

    RECEIVED = "received"  # durable on disk, waits for a worker
    CLAIMED = "claimed"  # a worker holds the lease
    SEGMENTED = "segmented"  # it has a result, whose objects are delivered one by one
    SKIPPED = "skipped"  # not a film for this model, for a coded reason
    FAILED = "failed"  # without a result; `rerun` tries again


INDETERMINATE = "indeterminate"  # the finding of a segmented film that is neither "pneumothorax" nor "none"
FINDINGS = ("pneumothorax", "none", INDETERMINATE)


class DeliveryState(StrEnum):
    """Of a delivery."""

    PENDING = "pending"  # due now or later
    SENT = "sent"  # the C-STORE has begun; its outcome is not known yet
    DELIVERED = "delivered"  # the destination has it
    REFUSED = "refused"  # permanently, for a reason that a person must fix; `retry` sends it again


FINISHED = (State.SEGMENTED, State.SKIPPED, State.FAILED)

LEGAL: dict[State, tuple[State, ...]] = {
    State.RECEIVED: (State.CLAIMED,),
    State.CLAIMED: (State.RECEIVED, *FINISHED),
    State.SEGMENTED: (State.RECEIVED,),  # rerun: a new generation
    State.SKIPPED: (State.RECEIVED,),
    State.FAILED: (State.RECEIVED,),
}


@dataclass(frozen=True)
class Arrival:
    """What the receiver knows of a film: its bytes on disk, and who sent them. No patient data."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    dataset_sha256: str  # of the dataset without File Meta
    path: str  # relative to the spool
    size: int  # bytes of the file
    calling_ae: str
    called_ae: str
    host: str
    association_id: int | None = None
    queue: str = "normal"  # or "urgent"
    mode: str = "live"  # shadow: segmented and stored, nothing is sent; ignore: skipped
    rule: str = ""  # the name of the rule that decided
    why: str = ""  # what matched in it
    destinations: tuple[str, ...] | None = None  # instead of send.destinations


@dataclass(frozen=True)
class Arrived:
    """The job of an arrival, and whether it names the file of this arrival."""

    job_id: str
    new: bool


@dataclass(frozen=True)
class Job:
    """One film, as the ledger knows it."""

    job_id: str  # ours, hex
    arrival: Arrival
    state: State
    received_at: float  # seconds since the epoch, for people; leases use another clock
    generation: int  # 1, and one more for every `rerun`
    attempts: int  # claims so far in this generation
    crashes: int  # of them: the process died while it worked on this film alone
    resends: int  # equal arrivals after the first
    owner: str | None  # token of the claim
    remote: str | None  # the worker's name when it is on another machine
    finisher: str | None  # token and digest of the result, see ledger.finisher
    finished_at: float | None
    code: str | None  # of a skip, a failure or an indeterminate finding
    sentence: str | None
    finding: str | None  # of FINDINGS
    probability: float | None  # of a pneumothorax, [0, 1]
    area_mm2: float | None  # None without a known pixel spacing
    model: str | None  # name and version
    model_digest: str | None
    same_as: str | None  # an earlier job with the same pixels
    revision: int  # 2, 3 ...: other pixels under the same SOP Instance UID
    seconds: float | None  # from claim to finish
    notes: tuple[str, ...] = ()  # codes of `segmenter.notes`: what was assumed about the film
    threshold: float | None = None  # a `probability` from here on is a finding; None: not known (older version)

    @property
    def answered_by(self) -> str:
        """The id of the job with the objects and deliveries of this film: this one, or the one that it is the same as."""
        return self.same_as or self.job_id

    def log_context(self) -> dict[str, str | int]:
        """What a log line about this job may contain."""
        return {"job": self.job_id, "sop_instance_uid": self.arrival.sop_instance_uid, "attempt": self.attempts}


@dataclass(frozen=True)
class StoredObject:
    """One object of a result, its bytes fixed on disk before the first send."""

    role: str  # seg, sr, ...
    variant: str  # per-destination variant, "" for the common one
    sop_class_uid: str
    sop_instance_uid: str
    sha256: str  # of the whole file
    path: str  # relative to the spool
    size: int
    intended_use: str  # of its model; "demo" is sent to other machines only with segment.allow_demo_model

    @property
    def kind(self) -> str:
        """Of `segmenter.objects.kinds.ObjectKind`; also the name of the file."""
        return kind_of(self.role, self.variant)


@dataclass(frozen=True)
class Outcome:
    """The result of one job; the fields are those of `Job`."""

    state: State  # SEGMENTED, SKIPPED or FAILED
    code: str | None = None
    sentence: str | None = None
    finding: str | None = None
    probability: float | None = None
    area_mm2: float | None = None
    content_sha256: str | None = None
    model: str | None = None
    model_digest: str | None = None
    revision: int = 1
    seconds: float = 0.0
    objects: tuple[StoredObject, ...] = ()
    notes: tuple[str, ...] = ()
    threshold: float | None = None  # [0, 1]; a probability from here on is a finding


@dataclass(frozen=True)
class Delivery:
    """One object for one destination."""

    delivery_id: int
    job_id: str
    destination: str
    object: StoredObject
    state: DeliveryState
    attempts: int
    status: int | None  # DIMSE status of the last answer
    reason: str | None  # why it is pending after a try, or was refused
    created_at: float
    next_try_at: float  # seconds since the epoch
    committed_at: float | None = None  # when the destination committed itself to keep it (storage commitment)
    crashes: int = 0  # in a row: the sender raised, or its process died, while it sent this object


@dataclass(frozen=True)
class KnownContent:
    """`revision`: the number of this content under its SOP Instance UID, from 1. `kinds`: the objects that a result of this
    model has already, None without a result."""

    revision: int
    kinds: tuple[str, ...] | None = None


def to_job(row: sqlite3.Row) -> Job:
    """A row of `jobs`."""
    arrival = Arrival(
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        transfer_syntax_uid=row["transfer_syntax_uid"],
        dataset_sha256=row["dataset_sha256"],
        path=row["path"] or "",
        size=row["size"],
        calling_ae=row["calling_ae"],
        called_ae=row["called_ae"],
        host=row["host"],
        association_id=row["association_id"],
        queue=row["queue"],
        mode=row["mode"],
        rule=row["rule"],
        why=row["why"],
        destinations=None if row["destinations"] is None else tuple(json.loads(row["destinations"])),
    )
    known = {
        "job_id": row["id"],
        "arrival": arrival,
        "state": State(row["state"]),
        "notes": tuple(json.loads(row["notes"])),
    }
    return Job(**known, **{one.name: row[one.name] for one in fields(Job) if one.name not in known})


def to_object(row: sqlite3.Row) -> StoredObject:
    """A row of `objects`."""
    names = ("role", "variant", "sop_class_uid", "sop_instance_uid", "sha256", "path", "size", "intended_use")
    return StoredObject(**{name: row[name] for name in names})


def to_delivery(row: sqlite3.Row) -> Delivery:
    """A row of `deliveries` joined with its object."""
    same = ("delivery_id", "job_id", "destination", "attempts", "status", "reason", "created_at", "next_try_at", "committed_at",
            "crashes")  # fmt: skip
    return Delivery(object=to_object(row), state=DeliveryState(row["state"]), **{name: row[name] for name in same})
