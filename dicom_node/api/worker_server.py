"""HTTP: the door for workers on other machines (claim, fetch, heartbeat, return, fail), and health and metrics.

A worker shows its token (`Authorization: Bearer`), and for everything about a job the owner token of its claim. 409 means:
that claim is not yours (any more). Whoever returns the same answer with the same token twice gets 200 twice.
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
    Ask,
    Content,
    Ended,
    Kept,
    Leases,
    Living,
    Lost,
    Ready,
    Result,
    Seen,
    Task,
    Trouble,
    task_of,
)
from dicom_node.runtime.config import Config
from dicom_node.runtime.errors import LostClaim, NodeError, SourceDamaged, SpoolError
from dicom_node.storage.leases import Claim
from dicom_node.storage.ledger import finisher
from dicom_node.storage.local_queue import LocalNode
from dicom_node.storage.spool import sha256_of
from dicom_node.storage.worker_tokens import Workers

log = logging.getLogger(__name__)

_JSON_BYTES = 64 * 1024
_BODY_SECONDS = 60.0
_OBJECT_NAME = r"^[a-z][a-z0-9-]{0,47}\.dcm$"


class Door:
    """What the handlers share. `open` turns False when the node stops: no new work is handed out then."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.here = LocalNode.of(config, "")
        self.ledger = self.here.ledger
        self.workers = Workers(self.ledger.store)
        self.open = True


def app_of(door: Door, *extra: APIRouter) -> FastAPI:
    """The application: /v1 for workers, and the routers that are given (health, metrics)."""
    app = FastAPI(title="segmenter-worker node", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(_claims(door))
    for router in extra:
        app.include_router(router)
    app.add_middleware(BodyLimit, limit=_limits(door.config))
    for error, status in ((LostClaim, 409), (BadResult, 422), (SpoolError, 507), (sqlite3.Error, 503), (SourceDamaged, 410)):
        app.add_exception_handler(error, _says(status))
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def _limits(config: Config) -> Callable[[str], int]:
    most = config.serve.max_object_mb * 2**20
    return lambda path: most if "/objects/" in path else _JSON_BYTES


def _says(status: int) -> Callable[[Request, Exception], JSONResponse]:
    def handler(request: Request, error: Exception) -> JSONResponse:
        text = str(error) if isinstance(error, NodeError) else "the ledger cannot be used; try again"
        if status >= 500:
            log.error("a worker's request failed", extra={"path": request.url.path, "error": str(error)})
        return JSONResponse({"detail": text}, status)

    return handler


def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Which field is wrong, and never its value."""
    assert isinstance(error, RequestValidationError)
    wrong = [{"field": ".".join(str(part) for part in one["loc"]), "problem": one["type"]} for one in error.errors()]
    return JSONResponse({"detail": wrong}, 422)


def _claims(door: Door) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["workers"])

    def worker(authorization: Annotated[str, Header()] = "") -> str:
        """The worker whose token this is."""
        scheme, _, token = authorization.partition(" ")
        name = door.workers.who(token.strip()) if scheme.lower() == "bearer" else None
        if name is None:
            raise HTTPException(401, "no worker has this token", {"WWW-Authenticate": "Bearer"})
        return name

    Who = Annotated[str, Depends(worker)]
    JobId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
    Owner = Annotated[str, Header(alias=OWNER_HEADER, pattern="^[0-9a-f]{32}$")]

    def claim_of(job_id: JobId, owner: Owner, who: Who) -> Claim:
        claim = door.ledger.claim_of(job_id, owner, who)
        if claim is None:
            raise LostClaim("this claim is not yours (any more)")
        return claim

    Held = Annotated[Claim, Depends(claim_of)]

    @router.get("/ready")
    def ready(who: Who) -> Ready:
        """How many jobs could be claimed now."""
        return Ready(ready=door.ledger.ready() if door.open else 0)

    @router.post("/claims", response_model=Task, responses={204: {"description": "nothing to do"}})
    def claim(ask: Ask, who: Who) -> Any:
        """Claim the next job."""
        door.workers.seen(who, ask.model, ask.model_digest)
        node = door.here.far(who, ask.instance)
        found = node.claim(ask.pid, ask.owner, beside=ask.beside) if door.open else None
        if found is None:
            return Response(status_code=204)
        log.info("film handed out", extra=found.job.log_context() | {"worker": who})
        return task_of(found, door.config.work.lease_seconds)

    @router.get("/claims/{job_id}/source", response_class=Response)
    def source(held: Held, who: Who) -> Response:
        """The Part 10 file of the film."""
        return Response(door.here.far(who).source(held), media_type="application/dicom")

    @router.put("/claims/{job_id}/lease", status_code=204)
    def renew(held: Held, who: Who) -> None:
        """Heartbeat of one claim, as workers before `/v1/leases` know it."""
        door.ledger.renew(held, door.config.work.lease_seconds)

    @router.put("/leases")
    def renew_all(leases: Leases, who: Who) -> Lost:
        """Heartbeat of all claims of a process."""
        lost = door.ledger.renew_all(leases.owners, door.config.work.lease_seconds, who)
        return Lost(owners=tuple(sorted(lost)))

    @router.delete("/claims/{job_id}", status_code=204)
    def release(held: Held, who: Who) -> None:
        """Give the job back untouched; what was sent for it is removed."""
        door.here.far(who).release(held)
        _sweep(door, held)

    @router.post("/claims/{job_id}/trouble", status_code=204)
    def trouble(trouble: Trouble, held: Held, who: Who) -> None:
        """The worker stumbled over the film: charged like a crash, and tried again."""
        door.here.far(who).charge(held, trouble.code, trouble.sentence)
        _sweep(door, held)

    @router.post("/claims/{job_id}/content")
    def content(content: Content, held: Held, who: Who) -> Seen:
        """What the node knows of these pixels."""
        known = door.here.far(who).known(held, content.content_sha256, content.model_digest)
        return Seen(revision=known.revision, kinds=known.kinds)

    @router.put("/claims/{job_id}/objects/{name}")
    async def store(request: Request, name: Annotated[str, Path(pattern=_OBJECT_NAME)], held: Held, who: Who) -> Kept:
        """The bytes of one object of a kind that is to be made. The same bytes again: 200. Other bytes of that name: 409."""
        data = await request.body()  # bounded by BodyLimit
        return await run_in_threadpool(_keep, door.here.far(who), held, name, data)

    @router.post("/claims/{job_id}/result")
    def result(result: Result, job_id: JobId, owner: Owner, who: Who) -> Ended:
        """The answer. Said again with the same token and the same words: 200."""
        held = door.ledger.claim_of(job_id, owner, who)
        if held is None:
            return _said_before(door, job_id, owner, result)
        node = door.here.far(who)
        try:
            outcome = outcome_of(node, held, result)
        except BadResult as problem:
            log.error("a worker's result was refused", extra=held.job.log_context() | {"worker": who, "error": str(problem)})
            node.charge(held, "result-refused", f"A worker returned what does not belong to the film: {problem}.")
            _sweep(door, held)
            raise
        job = node.finish(held, outcome)
        log.info("job %s", job.state, extra=job.log_context() | {"worker": who, "finding": job.finding, "code": job.code})
        return Ended(state=str(job.state), same_as=job.same_as)

    @router.post("/living", status_code=204)
    def living(living: Living, who: Who) -> None:
        """Which processes of a worker live: the claims of the others are freed, each charged with a crash."""
        there = door.here.far(who, living.instance)
        there.bury(living.dead if living.dead is not None else there.others_than(living.pids))

    return router


def _keep(node: LocalNode, claim: Claim, name: str, data: bytes) -> Kept:
    if name.removesuffix(".dcm") not in node.router.kinds(claim.job.arrival):
        raise BadResult(f"{name} is not among the objects that are to be made of this film")
    path = f"job/{claim.job.job_id}/{claim.owner}/{name}"
    try:
        known = node.spool.read(path)
    except FileNotFoundError:
        return Kept(sha256=node.store(claim, name, data)[1])
    if known != data:
        raise LostClaim(f"{name} was sent before with other bytes")
    return Kept(sha256=sha256_of(data))


def _sweep(door: Door, claim: Claim) -> None:
    """The reaper would come in an hour; a worker could fill the disk until then."""
    try:
        door.here.spool.remove_folder(claim.job.job_id, claim.owner)
    except OSError as problem:
        log.warning("what a worker sent cannot be removed, the reaper will", extra={"error": str(problem)})


def _said_before(door: Door, job_id: str, owner: str, result: Result) -> Ended:
    """A worker that did not hear our answer says it again. Raises LostClaim when it is another answer, or another's."""
    try:
        job = door.ledger.job(job_id)
    except NodeError as error:
        raise LostClaim("this claim is not yours (any more)") from error
    shas = [one.sha256 for one in result.objects]
    if job.finisher != finisher(owner, result.state, result.code, result.finding, shas):
        raise LostClaim("this claim is not yours (any more)")
    return Ended(state=str(job.state), same_as=job.same_as)


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
