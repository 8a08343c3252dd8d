"""The bodies of requests and replies between a node and a worker on another machine, bounded and checked.

The names of the fields are the protocol: nodes and workers of other versions know them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dicom_node.storage.leases import Claim
from dicom_node.storage.records import Arrival, Job, State

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
Pid = Annotated[int, Field(ge=1, lt=2**31)]
OwnerToken = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+$")]
Text = Annotated[str, Field(max_length=400)]
Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,15}$")]
Variant = Annotated[str, Field(pattern=r"^[a-z0-9-]{0,32}$")]
Kinds = Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")], ...], Field(max_length=32)]
ModelName = Annotated[str, Field(min_length=1, max_length=128)]

OWNER_HEADER = "X-Claim-Owner"


class RequestBody(BaseModel):
    """What a worker sends; an unknown field is an error (422)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ReplyBody(RequestBody):
    """What the node answers. A worker ignores fields that only a newer node sends: nodes are updated before workers."""

    model_config = ConfigDict(extra="ignore")


class ClaimRequest(RequestBody):
    """A worker process asks for a job. `owner`: a token that the worker draws; a repeated request with the same token gets the
    same job. `beside`: the process has other films in work. `instance`: names the group of processes of this worker."""

    instance: Hex
    pid: Pid
    owner: OwnerToken
    model: ModelName
    model_digest: Sha256
    beside: bool = False


class ClaimReply(ReplyBody):
    """A claimed job. `dataset_sha256` is of the dataset without File Meta (PS3.10 7.1); the lease is measured by the node's
    clock. `kinds`: the objects to make, of `segmenter.objects.kinds.ObjectKind`."""

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


class RenewalRequest(RequestBody):
    """Heartbeat: the owner tokens of claims to renew."""

    owners: Annotated[tuple[OwnerToken, ...], Field(min_length=1, max_length=1024)]


class RenewalReply(ReplyBody):
    """The owner tokens among them that are no longer valid."""

    owners: tuple[OwnerToken, ...]


class CrashReport(RequestBody):
    """The worker failed at a film: charged to it like a crash."""

    code: Code
    sentence: Text


class ContentRequest(RequestBody):
    """Which pixels a film contains, and which model is about to answer."""

    content_sha256: Sha256
    model_digest: Sha256


class ContentReply(ReplyBody):
    """See `records.KnownContent`."""

    revision: int
    kinds: Kinds | None


class ObjectReply(ReplyBody):
    """An object is stored on the node."""

    sha256: Sha256


class ReturnedObject(RequestBody):
    """One object of a result; its bytes were sent before."""

    role: Role
    variant: Variant
    sha256: Sha256


class Result(RequestBody):
    """The result of a job. `probability`, `threshold`: [0, 1]; `area_mm2`: of the finding; `seconds`: of work."""

    state: Literal["segmented", "skipped", "failed"]
    code: Code | None = None
    sentence: Text | None = None
    finding: Literal["pneumothorax", "none", "indeterminate"] | None = None
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    area_mm2: Annotated[float, Field(ge=0)] | None = None
    content_sha256: Sha256 | None = None
    model: ModelName | None = None
    model_digest: Sha256 | None = None
    intended_use: Literal["demo", "research"] = "demo"
    seconds: Annotated[float, Field(ge=0)] = 0.0
    objects: Annotated[tuple[ReturnedObject, ...], Field(max_length=32)] = ()
    notes: Annotated[tuple[Code, ...], Field(max_length=64)] = ()
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # older workers do not send it


class ResultReply(ReplyBody):
    """The state of a job after its result; `same_as`: the earlier job with the same pixels."""

    state: str
    same_as: str | None


class ProcessReport(RequestBody):
    """A worker reports which of its processes run and which died: the claims of the dead are released and charged."""

    instance: Hex
    pids: Annotated[tuple[Pid, ...], Field(max_length=256)]
    dead: Annotated[tuple[Pid, ...] | None, Field(max_length=256)] = None  # None: all others (older workers)


class ReadyReply(ReplyBody):
    """How many jobs could be claimed now."""

    ready: int


def claim_reply(claim: Claim, lease_seconds: float) -> ClaimReply:
    """A claim as the node sends it."""
    job, arrival = claim.job, claim.job.arrival
    return ClaimReply(
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


def claim_from(reply: ClaimReply, owner: str) -> Claim:
    """The claim as the worker holds it; the fields that only the node knows are empty."""
    arrival = Arrival(
        sop_instance_uid=reply.sop_instance_uid,
        sop_class_uid=reply.sop_class_uid,
        transfer_syntax_uid=reply.transfer_syntax_uid,
        dataset_sha256=reply.dataset_sha256,
        path="",
        size=reply.size,
        calling_ae="",
        called_ae="",
        host="",
    )
    job = Job(
        job_id=reply.job_id,
        arrival=arrival,
        state=State.CLAIMED,
        received_at=0.0,
        generation=reply.generation,
        attempts=reply.attempts,
        crashes=reply.crashes,
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
    return Claim(job, owner, reply.kinds)
