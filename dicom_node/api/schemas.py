"""What crosses between a node and a worker on another machine: the bodies of the HTTP interface, bounded and checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dicom_node.storage.leases import Claim
from dicom_node.storage.records import Arrival, Job, State

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
Pid = Annotated[int, Field(ge=1, lt=2**31)]
Token = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+$")]
Text = Annotated[str, Field(max_length=400)]
Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,15}$")]
Variant = Annotated[str, Field(pattern=r"^[a-z0-9-]{0,32}$")]
Kinds = Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")], ...], Field(max_length=32)]
Model = Annotated[str, Field(min_length=1, max_length=128)]

OWNER_HEADER = "X-Claim-Owner"


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Reply(Body):
    """What the node answers. A worker passes over what only a newer node says: nodes are updated before their workers."""

    model_config = ConfigDict(extra="ignore")


class Ask(Body):
    """A worker process asks for a job. `owner` is drawn by the worker: asking again with it is asking the same. `beside`: it
    has other films on its bench."""

    instance: Hex
    pid: Pid
    owner: Token
    model: Model
    model_digest: Sha256
    beside: bool = False


class Task(Reply):
    """A job that was claimed. `dataset_sha256` is of the dataset without File Meta; the node's clock runs the lease."""

    job_id: Hex
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    dataset_sha256: Sha256
    size: int
    attempts: int
    crashes: int
    generation: int
    lease_seconds: float
    kinds: Kinds


class Leases(Body):
    """The owner tokens of claims that go on."""

    owners: Annotated[tuple[Token, ...], Field(min_length=1, max_length=1024)]


class Lost(Reply):
    """Those among them that are no longer valid."""

    owners: tuple[Token, ...]


class Trouble(Body):
    """What went wrong with a film in the worker."""

    code: Code
    sentence: Text


class Content(Body):
    """Which pixels a film turned out to hold, and which model is about to answer."""

    content_sha256: Sha256
    model_digest: Sha256


class Seen(Reply):
    """`revision`: which content under this SOP Instance UID it is; `kinds`: what this model made of it already, or None."""

    revision: int
    kinds: Kinds | None


class Kept(Reply):
    """An object as it lies on the node's disk."""

    sha256: Sha256


class Returned(Body):
    """One object of an answer; its bytes were sent before."""

    role: Role
    variant: Variant
    sha256: Sha256


class Result(Body):
    """The answer for a job."""

    state: Literal["segmented", "skipped", "failed"]
    code: Code | None = None
    sentence: Text | None = None
    finding: Literal["pneumothorax", "none", "indeterminate"] | None = None
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    area_mm2: Annotated[float, Field(ge=0)] | None = None
    content_sha256: Sha256 | None = None
    model: Model | None = None
    model_digest: Sha256 | None = None
    intended_use: Literal["demo", "research"] = "demo"
    seconds: Annotated[float, Field(ge=0)] = 0.0
    objects: Annotated[tuple[Returned, ...], Field(max_length=32)] = ()
    notes: Annotated[tuple[Code, ...], Field(max_length=64)] = ()
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # older workers do not say it


class Ended(Reply):
    """How a job stands after its answer."""

    state: str
    same_as: str | None


class Living(Body):
    """A worker's parent says which of its processes are alive, and which have died: their claims are freed, and charged."""

    instance: Hex
    pids: Annotated[tuple[Pid, ...], Field(max_length=256)]
    dead: Annotated[tuple[Pid, ...] | None, Field(max_length=256)] = None  # None: all others, as older workers mean it


class Ready(Reply):
    """How many jobs could be claimed now."""

    ready: int


def task_of(claim: Claim, lease_seconds: float) -> Task:
    job, arrival = claim.job, claim.job.arrival
    return Task(
        job_id=job.job_id,
        sop_instance_uid=arrival.sop_instance_uid,
        sop_class_uid=arrival.sop_class_uid,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        dataset_sha256=arrival.dataset_sha256,
        size=arrival.size,
        attempts=job.attempts,
        crashes=job.crashes,
        generation=job.generation,
        lease_seconds=lease_seconds,
        kinds=claim.kinds,
    )


def claim_of(task: Task, owner: str) -> Claim:
    """The claim as the worker holds it; what only the node knows is empty."""
    arrival = Arrival(
        sop_instance_uid=task.sop_instance_uid,
        sop_class_uid=task.sop_class_uid,
        transfer_syntax_uid=task.transfer_syntax_uid,
        dataset_sha256=task.dataset_sha256,
        path="",
        size=task.size,
        calling_ae="",
        called_ae="",
        host="",
    )
    job = Job(
        job_id=task.job_id,
        arrival=arrival,
        state=State.CLAIMED,
        received_at=0.0,
        generation=task.generation,
        attempts=task.attempts,
        crashes=task.crashes,
        resends=0,
        owner=owner,
        remote=None,
        finisher=None,
        finished_at=None,
        code=None,
        sentence=None,
        finding=None,
        probability=None,
        area_mm2=None,
        model=None,
        model_digest=None,
        same_as=None,
        revision=1,
        seconds=None,
    )
    return Claim(job, owner, task.kinds)
