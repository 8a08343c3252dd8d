"""The worker API over HTTP: claim, fetch, heartbeat, return, fail; for workers on other machines.

A worker authenticates with its token (`Authorization: Bearer`, RFC 6750), and for a job with the owner token of its claim. 409
means that the claim is not valid (any more). The same result with the same owner token is answered with 200 each time.
No patient data in errors: they name codes, UIDs and what is wrong, never a value of the header.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_node import __version__
from dicom_node.api.result_validation import BadResult, outcome_of
from dicom_node.api.schemas import (
    OWNER_HEADER,
    ClaimReply,
    ClaimRequest,
    ContentReply,
    ContentRequest,
    CrashReport,
    ObjectReply,
    ProcessReport,
    ReadyReply,
    RenewalReply,
    RenewalRequest,
    Result,
    ResultReply,
    claim_reply,
)
from dicom_node.runtime.config import Config
from dicom_node.runtime.errors import LostClaim, NodeError, SourceDamaged, SpoolError
from dicom_node.storage.leases import Claim
from dicom_node.storage.ledger import finisher
from dicom_node.storage.local_queue import LocalQueue
from dicom_node.storage.spool import sha256_of
from dicom_node.storage.worker_tokens import Workers

log = logging.getLogger(__name__)

_JSON_BYTES = 64 * 1024
_BODY_SECONDS = 60.0
_NOT_VALID = "this claim is not valid (any more)"
_OBJECT_NAME = r"^[a-z][a-z0-9-]{0,47}\.dcm$"


class WorkerApi:
    """What the handlers share. `hands_out_work` is set to False when the node stops: no further job can be claimed then."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.queue = LocalQueue.of(config, "")
        self.ledger = self.queue.ledger
        self.workers = Workers(self.ledger.store)
        self.hands_out_work = True


def application(api: WorkerApi, *extra: APIRouter) -> FastAPI:
    """The ASGI application: /v1 for workers, and the routers that are given (health, metrics)."""
    app = FastAPI(title="segmenter-worker node", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(_worker_routes(api))
    for router in extra:
        app.include_router(router)
    app.add_middleware(BodyLimit, limit=_limits(api.config))
    for error, status in ((LostClaim, 409), (BadResult, 422), (SpoolError, 507), (sqlite3.Error, 503), (SourceDamaged, 410)):
        app.add_exception_handler(error, _error_reply(status))
    app.add_exception_handler(RequestValidationError, _invalid_request)
    return app


def _limits(config: Config) -> Callable[[str], int]:
    most = config.serve.max_object_mb * 2**20
    return lambda path: most if "/objects/" in path else _JSON_BYTES


def _error_reply(status: int) -> Callable[[Request, Exception], JSONResponse]:
    def handler(request: Request, error: Exception) -> JSONResponse:
        text = str(error) if isinstance(error, NodeError) else "the ledger cannot be used; try again later"
        if status >= 500:
            log.error("a worker's request failed", extra={"path": request.url.path, "error": str(error)})
        return JSONResponse({"detail": text}, status)

    return handler


def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    """422 with the names of the wrong fields, never their values."""
    assert isinstance(error, RequestValidationError)
    wrong = [{"field": ".".join(str(part) for part in one["loc"]), "problem": one["type"]} for one in error.errors()]
    return JSONResponse({"detail": wrong}, 422)


def _worker_routes(api: WorkerApi) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["workers"])

    def worker(authorization: Annotated[str, Header()] = "") -> str:
        """The worker whose token this is."""
        scheme, _, token = authorization.partition(" ")
        name = api.workers.authenticate(token.strip()) if scheme.lower() == "bearer" else None
        if name is None:
            raise HTTPException(401, "no worker has this token", {"WWW-Authenticate": "Bearer"})
        return name

    Who = Annotated[str, Depends(worker)]
    JobId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
    Owner = Annotated[str, Header(alias=OWNER_HEADER, pattern="^[0-9a-f]{32}$")]

    def claim_of(job_id: JobId, owner: Owner, who: Who) -> Claim:
        claim = api.ledger.claim_of(job_id, owner, who)
        if claim is None:
            raise LostClaim(_NOT_VALID)
        return claim

    Held = Annotated[Claim, Depends(claim_of)]

    @router.get("/ready")
    def ready(who: Who) -> ReadyReply:
        """How many jobs could be claimed now."""
        return ReadyReply(ready=api.ledger.ready() if api.hands_out_work else 0)

    @router.post("/claims", response_model=ClaimReply, responses={204: {"description": "nothing to do"}})
    def claim(ask: ClaimRequest, who: Who) -> Any:
        """Claim the next job."""
        api.workers.record_seen(who, ask.model, ask.model_digest)
        queue = api.queue.for_remote_worker(who, ask.instance)
        found = queue.claim(ask.pid, ask.owner, beside=ask.beside) if api.hands_out_work else None
        if found is None:
            return Response(status_code=204)
        log.info("film handed out", extra=found.job.log_context() | {"worker": who})
        return claim_reply(found, api.config.work.lease_seconds)

    @router.get("/claims/{job_id}/source", response_class=Response)
    def source(held: Held, who: Who) -> Response:
        """The Part 10 file of the film."""
        return Response(api.queue.for_remote_worker(who).source(held), media_type="application/dicom")

    @router.put("/claims/{job_id}/lease", status_code=204)
    def renew(held: Held, who: Who) -> None:
        """Heartbeat of one claim, as workers before `/v1/leases` know it."""
        api.ledger.renew(held, api.config.work.lease_seconds)

    @router.put("/leases")
    def renew_all(leases: RenewalRequest, who: Who) -> RenewalReply:
        """Heartbeat of all claims of a process."""
        lost = api.ledger.renew_all(leases.owners, api.config.work.lease_seconds, who)
        return RenewalReply(owners=tuple(sorted(lost)))

    @router.delete("/claims/{job_id}", status_code=204)
    def release(held: Held, who: Who) -> None:
        """Give the job back unchanged; objects that were sent for it are removed."""
        api.queue.for_remote_worker(who).release(held)
        _remove_objects(api, held)

    @router.post("/claims/{job_id}/trouble", status_code=204)
    def crash(report: CrashReport, held: Held, who: Who) -> None:
        """The worker failed at the film: charged like a crash, and tried again."""
        api.queue.for_remote_worker(who).charge(held, report.code, report.sentence)
        _remove_objects(api, held)

    @router.post("/claims/{job_id}/content")
    def content(content: ContentRequest, held: Held, who: Who) -> ContentReply:
        """What the node knows of this content."""
        known = api.queue.for_remote_worker(who).known(held, content.content_sha256, content.model_digest)
        return ContentReply(revision=known.revision, kinds=known.kinds)

    @router.put("/claims/{job_id}/objects/{name}")
    async def store(request: Request, name: Annotated[str, Path(pattern=_OBJECT_NAME)], held: Held, who: Who) -> ObjectReply:
        """The bytes of one object of a kind that is to be made. The same bytes again: 200. Other bytes under that name: 409."""
        data = await request.body()  # bounded by BodyLimit
        return await run_in_threadpool(_store_object, api.queue.for_remote_worker(who), held, name, data)

    @router.post("/claims/{job_id}/result")
    def result(result: Result, job_id: JobId, owner: Owner, who: Who) -> ResultReply:
        """The result. The same result again with the same owner token: 200."""
        held = api.ledger.claim_of(job_id, owner, who)
        if held is None:
            return _repeated_result(api, job_id, owner, result)
        queue = api.queue.for_remote_worker(who)
        try:
            outcome = outcome_of(queue, held, result)
        except BadResult as problem:
            log.error("a worker's result was refused", extra=held.job.log_context() | {"worker": who, "error": str(problem)})
            queue.charge(held, "result-refused", f"A worker returned what does not belong to the film: {problem}.")
            _remove_objects(api, held)
            raise
        job = queue.finish(held, outcome)
        log.info("job %s", job.state, extra=job.log_context() | {"worker": who, "finding": job.finding, "code": job.code})
        return ResultReply(state=str(job.state), same_as=job.same_as)

    @router.post("/living", status_code=204)
    def processes(report: ProcessReport, who: Who) -> None:
        """Which processes of a worker run: the claims of the dead are released, each charged with a crash."""
        queue = api.queue.for_remote_worker(who, report.instance)
        queue.release_dead(report.dead if report.dead is not None else queue.claimants_except(report.pids))

    return router


def _store_object(queue: LocalQueue, claim: Claim, name: str, data: bytes) -> ObjectReply:
    if name.removesuffix(".dcm") not in queue.router.kinds(claim.job.arrival):
        raise BadResult(f"{name} is not among the objects that are to be made of this film")
    path = f"job/{claim.job.job_id}/{claim.owner}/{name}"
    try:
        known = queue.spool.read(path)
    except FileNotFoundError:
        return ObjectReply(sha256=queue.store(claim, name, data)[1])
    if known != data:
        raise LostClaim(f"{name} was sent before with other bytes")
    return ObjectReply(sha256=sha256_of(data))


def _remove_objects(api: WorkerApi, claim: Claim) -> None:
    """Retention would remove them in an hour; a worker could fill the disk until then."""
    try:
        api.queue.spool.remove_folder(claim.job.job_id, claim.owner)
    except OSError as problem:
        log.warning("objects of a worker cannot be removed now, retention will", extra={"error": str(problem)})


def _repeated_result(api: WorkerApi, job_id: str, owner: str, result: Result) -> ResultReply:
    """A worker that got no reply sends its result again. Raises LostClaim when the result differs, or is another worker's."""
    try:
        job = api.ledger.job(job_id)
    except NodeError as error:
        raise LostClaim(_NOT_VALID) from error
    shas = [one.sha256 for one in result.objects]
    if job.finisher != finisher(owner, result.state, result.code, result.finding, shas):
        raise LostClaim(_NOT_VALID)
    return ResultReply(state=str(job.state), same_as=job.same_as)


class BodyLimit:
    """Refuses a body over its limit before it is in memory, and one that comes too slowly. `limit`: path -> bytes."""

    def __init__(self, app: ASGIApp, limit: Callable[[str], int], seconds: float = _BODY_SECONDS) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = self._limit(scope["path"])
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds

        async def bounded() -> Message:
            nonlocal left
            try:
                message = await asyncio.wait_for(receive(), max(0.0, until - loop.time()) if left >= 0 else None)
            except TimeoutError as error:
                raise HTTPException(408, "the body took too long") from error
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "the body is larger than allowed")
            return message

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > left:
            await JSONResponse({"detail": "the body is larger than allowed"}, 413)(scope, receive, send)
            return
        await self._app(scope, bounded, send)
