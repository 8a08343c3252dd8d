"""The job queue of a node on another machine: claims, films and results over HTTP (worker_server.py is the other side).

Every request may be repeated: a claim has the token that the worker drew, an object its sha256, a result its content. So a
request whose reply was lost is sent again, and nothing happens twice. When the node cannot be reached for as long as a lease
lasts, the film is given up, uncharged: by then the node has given it to another worker.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from dicom_node.api.schemas import (
    OWNER_HEADER,
    ClaimReply,
    ContentReply,
    ContentRequest,
    CrashReport,
    ObjectReply,
    ReadyReply,
    RenewalReply,
    RenewalRequest,
    ReplyBody,
    Result,
    ResultReply,
    ReturnedObject,
    claim_from,
)
from dicom_node.dimse.hosts import is_loopback
from dicom_node.runtime import connection_errors
from dicom_node.runtime.config_sections import Work
from dicom_node.runtime.errors import ConfigError, LostClaim, NodeAway, SourceDamaged
from dicom_node.runtime.log_limit import LogLimit
from dicom_node.runtime.procfs import children_of
from dicom_node.storage.leases import Claim
from dicom_node.storage.records import Job, KnownContent, Outcome, State
from segmenter.errors import Refused

log = logging.getLogger(__name__)

T = TypeVar("T", bound=ReplyBody)

_CONNECT_SECONDS = 5.0
_REPEAT_SECONDS = 1.0
_CHECK_SECONDS = 20.0  # between two checks of an idle worker whether the node still accepts it
_PIECE_BYTES = 256 * 1024  # sent between two checks of the time limit


class RemoteQueue:
    """The job queue of another machine's node. One per process: connections do not cross a fork."""

    def __init__(self, client: httpx2.Client, work: Work, instance: str, model: str = "", model_digest: str = "") -> None:
        self._client = client
        self._work = work
        self._lease_seconds = work.lease_seconds  # until the node sends the length of its leases
        self._instance = instance
        self._model, self._model_digest = model, model_digest
        self._children: set[int] = set()
        self._dead: set[int] = set()  # not yet reported to the node
        self._log_limit = LogLimit()
        self._is_refused = False
        self._next_check = 0.0
        self._renews_singly = False

    @classmethod
    def of(cls, work: Work, instance: str, model: str = "", model_digest: str = "") -> RemoteQueue:
        """`instance`: hexadecimal, names this group of processes. Raises ConfigError when token or CA cannot be read, or the
        token would cross the network without TLS."""
        refuse_plain(work)
        client = httpx2.Client(
            base_url=work.node.rstrip("/"),
            headers={"Authorization": f"Bearer {read_token(work)}"},
            verify=_trust(work),
            # A broken connection is silent: waiting a third of a lease leaves time to repeat the request.
            timeout=httpx2.Timeout(max(2.0, work.lease_seconds / 3), connect=_CONNECT_SECONDS),
            trust_env=False,  # a proxy to the internet does not lead to a node in the hospital
        )
        return cls(client, work, instance, model, model_digest)

    @property
    def heartbeat_seconds(self) -> float:
        """Between two heartbeats of a claim: at most a quarter of the node's lease."""
        return min(self._work.heartbeat_seconds, self._lease_seconds / 4)

    def close(self) -> None:
        """Nothing to do before a fork: a child makes its own client and does not use this one."""

    # -- in a worker's child -----------------------------------------------------------------------------------

    def claim(self, *, beside: bool = False) -> Claim | None:
        """The next job; None when there is none or the node cannot be reached. `beside`: see `Leases.claim`."""
        owner = secrets.token_hex(16)
        ask: dict[str, str | int | bool] = {
            "instance": self._instance,
            "pid": os.getpid(),
            "owner": owner,
            "model": self._model,
            "model_digest": self._model_digest,
        }
        if beside:  # sent only then: a node of an older version does not know the field
            ask["beside"] = True
        try:
            answer = self._call("POST", "/v1/claims", json=ask)
        except NodeAway as problem:
            if self._log_limit.allows():
                log.error("no work can be claimed", extra={"error": str(problem)})
            return None
        if answer.status_code == 204:
            return None
        reply = self._parsed(ClaimReply, answer)
        self._lease_seconds = reply.lease_seconds
        return claim_from(reply, owner)

    def renew(self, claims: Sequence[Claim]) -> set[str]:
        """Heartbeat; the owner tokens that are no longer valid. Raises NodeAway."""
        if len(claims) > 1 and not self._renews_singly:
            renewal = RenewalRequest(owners=tuple(claim.owner for claim in claims))
            answer = self._call("PUT", "/v1/leases", patience=0, accept=(404, 405), json=renewal.model_dump())
            if answer.is_success:
                return set(self._parsed(RenewalReply, answer).owners)
            self._renews_singly = True  # a node of an older version
        return {claim.owner for claim in claims if not self._renewed(claim)}

    def _renewed(self, claim: Claim) -> bool:
        """False when it is lost. A connection that breaks between two claims must not stop the other renewals."""
        try:
            self._call("PUT", f"/v1/claims/{claim.job.job_id}/lease", claim=claim, patience=0)
        except LostClaim:
            return False
        except NodeAway:
            pass  # the next heartbeat may get through
        return True

    def release(self, claim: Claim) -> None:
        """Give the job back unchanged. Raises LostClaim, NodeAway."""
        self._call("DELETE", f"/v1/claims/{claim.job.job_id}", claim=claim)

    def charge(self, claim: Claim, code: str, sentence: str) -> None:
        """Charge the job with a crash. When this fails it is logged only: the lease expires."""
        report = CrashReport(code=code, sentence=sentence[:400])
        try:
            self._call("POST", f"/v1/claims/{claim.job.job_id}/trouble", claim=claim, json=report.model_dump())
        except (LostClaim, NodeAway) as problem:
            context = claim.job.log_context() | {"error": str(problem)}
            log.warning("a failure at a film could not be reported to the node", extra=context)

    def source(self, claim: Claim) -> bytes:
        """The Part 10 file of the film. Raises SourceDamaged, LostClaim, NodeAway."""
        answer = self._call("GET", f"/v1/claims/{claim.job.job_id}/source", claim=claim, accept=(200, 410), paced=True)
        if answer.status_code == 410:
            raise SourceDamaged("The stored film is gone from the spool.")
        return answer.content

    def known(self, claim: Claim, content_sha256: str, model_digest: str) -> KnownContent:
        """What the node knows of this content. Raises LostClaim, NodeAway."""
        content = ContentRequest(content_sha256=content_sha256, model_digest=model_digest)
        answer = self._call("POST", f"/v1/claims/{claim.job.job_id}/content", claim=claim, json=content.model_dump())
        reply = self._parsed(ContentReply, answer)
        return KnownContent(reply.revision, reply.kinds)

    def store(self, claim: Claim, name: str, data: bytes) -> tuple[str, str]:
        """Send one object: ("", its sha256). Raises Refused when it is larger than serve.max_object_mb, LostClaim, NodeAway."""
        path = f"/v1/claims/{claim.job.job_id}/objects/{name}"
        answer = self._call("PUT", path, claim=claim, content=data, accept=(413,), paced=True)
        if answer.status_code == 413:
            raise Refused("result-too-large", f"{name} has {len(data)} bytes, more than the node takes (serve.max_object_mb).")
        reply = self._parsed(ObjectReply, answer)
        if reply.sha256 != hashlib.sha256(data).hexdigest():
            raise NodeAway("the node stored other bytes than were sent: check the network and the disk of the node")
        return "", reply.sha256

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
        """Return the result of a job; the job as it is then. Raises LostClaim, NodeAway."""
        result = Result(
            state=str(outcome.state),  # type: ignore[arg-type]
            code=outcome.code,
            sentence=outcome.sentence and outcome.sentence[:400],
            finding=outcome.finding,  # type: ignore[arg-type]
            probability=outcome.probability,
            area_mm2=outcome.area_mm2,
            content_sha256=outcome.content_sha256,
            model=outcome.model,
            model_digest=outcome.model_digest,
            intended_use="research" if all(one.intended_use == "research" for one in outcome.objects) else "demo",
            seconds=outcome.seconds,
            objects=tuple(ReturnedObject(role=one.role, variant=one.variant, sha256=one.sha256) for one in outcome.objects),
            notes=outcome.notes,
            threshold=outcome.threshold,
        )
        path = f"/v1/claims/{claim.job.job_id}/result"
        reply = self._parsed(ResultReply, self._call("POST", path, claim=claim, json=result.model_dump()))
        return replace(
            claim.job,
            state=State(reply.state),
            same_as=reply.same_as,
            finding=outcome.finding,
            code=outcome.code,
            seconds=outcome.seconds,
        )

    # -- in a worker's parent ----------------------------------------------------------------------------------

    def ready(self) -> int:
        """How many jobs could be claimed now. Raises NodeAway."""
        self._next_check = time.monotonic() + _CHECK_SECONDS
        return self._parsed(ReadyReply, self._call("GET", "/v1/ready", patience=0)).ready

    def reap(self) -> bool:
        """Report to the node which of our processes run, each time one has died. True: only the node knows who has a film.
        Raises NodeAway."""
        living, _ = children_of(os.getpid())
        self._dead |= self._children - living
        self._children = living
        if self._dead:
            body = {"instance": self._instance, "pids": sorted(living), "dead": sorted(self._dead)}
            self._call("POST", "/v1/living", patience=0, json=body)
            self._dead = set()
        elif time.monotonic() > self._next_check:
            self.ready()  # where Redis wakes the worker, nothing else would notice a revoked token
        return True

    # -- requests --------------------------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        path: str,
        *,
        claim: Claim | None = None,
        patience: float | None = None,
        accept: tuple[int, ...] = (),
        paced: bool = False,
        **body: Any,
    ) -> httpx2.Response:
        """One request, repeated until it is answered or `patience` (seconds; default: as long as a lease) is over. `paced`: the
        whole transfer has a third of the time that a film may take: a slow network is not charged to the film.

        Raises LostClaim for 409, NodeAway for every other failure.
        """
        patience = self._work.time_limit_seconds / 3 if paced else patience
        until = time.monotonic() + (self._lease_seconds if patience is None else patience)
        headers = {OWNER_HEADER: claim.owner} if claim else {}
        while True:
            try:
                answer = (
                    self._transferred(method, path, headers, body)
                    if paced
                    else self._client.request(method, path, headers=headers, **body)
                )
                problem = None if answer.status_code < 500 and answer.status_code != 429 else f"status {answer.status_code}"
            except (httpx2.RequestError, OSError) as error:  # RequestError: TransportError lacks DecodingError
                problem = connection_errors.why(error, host=self._client.base_url.host, ca_key="work.node_ca")
            if problem is None:
                break
            if time.monotonic() + _REPEAT_SECONDS > until:
                raise NodeAway(f"{self._work.node} does not answer ({problem})")
            time.sleep(_REPEAT_SECONDS)
        if answer.status_code == 401 and self._has_a_new_token():
            return self._call(method, path, claim=claim, patience=patience, accept=accept, paced=paced, **body)
        if answer.status_code not in (401, 403) and self._is_refused:
            self._is_refused = False
            log.info("the node accepts our token again")
        if answer.is_success or answer.status_code in accept:
            return answer
        if answer.status_code == 409:
            raise LostClaim("the node says that this claim is not valid (any more)")
        if answer.status_code in (401, 403):
            self._is_refused = True
            raise NodeAway(
                f"{self._work.node} does not accept our token: it was revoked or replaced; `workers add NAME` on the node "
                "makes a new one for work.token_file, which is read again without a restart"
            )
        raise NodeAway(f"{self._work.node} answered {answer.status_code} to {method} {path.split('/')[-1]}")

    def _has_a_new_token(self) -> bool:
        """Whether work.token_file has another token than the one in use: `workers add` made it meanwhile."""
        try:
            header = f"Bearer {read_token(self._work)}"
        except ConfigError:
            return False
        changed, self._client.headers["Authorization"] = header != self._client.headers["Authorization"], header
        return changed

    def _parsed(self, kind: type[T], answer: httpx2.Response) -> T:
        """Raises NodeAway for a reply that is not a node's: the page of a proxy, for example."""
        try:
            return kind.model_validate_json(answer.content)
        except ValueError as error:
            raise NodeAway(f"{self._work.node} answers, but not as a node does; is a proxy in between?") from error

    def _transferred(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> httpx2.Response:
        """One request; the time limit holds for its body and for that of the reply. Raises NodeAway."""
        began, most = time.monotonic(), self._work.time_limit_seconds / 3

        def paced(chunks: Iterable[bytes]) -> Iterator[bytes]:
            done = 0
            for chunk in chunks:
                yield chunk
                done += len(chunk)
                if (took := time.monotonic() - began) > most:
                    raise NodeAway(
                        f"the network to {self._work.node} is too slow for this film: {done / took / 1000:.0f} kB/s "
                        "(raise work.time_limit_seconds, or improve the network)"
                    )

        body = body | {"timeout": httpx2.Timeout(min(most, self._client.timeout.read or most), connect=_CONNECT_SECONDS)}
        if data := body.get("content"):
            headers = headers | {"Content-Length": str(len(data))}
            body = body | {"content": paced(data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))}
        with self._client.stream(method, path, headers=headers, **body) as answer:
            held = b"".join(paced(answer.iter_raw()))
        return httpx2.Response(answer.status_code, headers=answer.headers, content=held, request=answer.request)


def refuse_plain(work: Work) -> None:
    """Raises ConfigError when work.node is on another machine, without TLS, and work.allow_plain is false."""
    url = urlsplit(work.node)
    if url.scheme != "https" and not work.allow_plain and not is_loopback(url.hostname or ""):
        raise ConfigError(
            f"work.node: {work.node} is not this machine, and without TLS token and films would cross the network unencrypted; "
            "use https:// (serve.tls_certificate there; or set work.allow_plain = true, behind a tunnel)"
        )


def read_token(work: Work) -> str:
    """The token in work.token_file. Raises ConfigError with the remedy."""
    if not work.token_file:
        raise ConfigError("work.token_file: not set; `segmenter-worker workers add NAME` on the node prints a token for it")
    try:
        token = Path(work.token_file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if re.fullmatch(r"[A-Za-z0-9_-]{40,}", Path(work.token_file).name):  # the message would show the token
            raise ConfigError("work.token_file: must be the name of the file with the token, not the token") from error
        said = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"work.token_file: {work.token_file} cannot be read ({said})") from error
    if not token.isascii() or not token:
        raise ConfigError(f"work.token_file: {work.token_file} contains no token")
    return token


def _trust(work: Work) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=work.node_ca or None)
    except (OSError, ssl.SSLError) as error:
        said = error.strerror or getattr(error, "reason", None) or type(error).__name__
        raise ConfigError(f"work.node_ca: {work.node_ca} contains no readable PEM certificates ({said})") from error
