"""The node on another machine, as a worker sees it: claims, films and answers over HTTP (worker_server.py is the other side).

Every call may be said again: a claim names the token that the worker drew, an object its sha256, an answer its words. So
a lost reply is asked for again, and nothing happens twice. What cannot be reached for as long as a lease lasts is
given up, uncharged: by then the node has given the film to somebody else.
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
    Content,
    Ended,
    Kept,
    Leases,
    Lost,
    Ready,
    Reply,
    Result,
    Returned,
    Seen,
    Task,
    Trouble,
    claim_of,
)
from dicom_node.dimse.hosts import is_loopback
from dicom_node.runtime import connection_errors
from dicom_node.runtime.config import Work
from dicom_node.runtime.errors import ConfigError, LostClaim, NodeAway, SourceDamaged
from dicom_node.runtime.log_limit import LogLimit
from dicom_node.runtime.procfs import children_of
from dicom_node.storage.leases import Claim
from dicom_node.storage.records import Job, Known, Outcome, State
from segmenter.errors import Refused

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Reply)

_CONNECT_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
_LOOK_SECONDS = 20.0  # between two looks of an idle worker whether the node still knows it
_PIECE = 256 * 1024  # bytes that are sent before the clock is looked at


class RemoteNode:
    """See `process.Node`. One per process: connections do not cross a fork."""

    def __init__(self, client: httpx2.Client, work: Work, instance: str, model: str = "", model_digest: str = "") -> None:
        self._client = client
        self._work = work
        self._lease_seconds = work.lease_seconds  # until the node says how long its leases are
        self._instance = instance
        self._model, self._model_digest = model, model_digest
        self._children: set[int] = set()
        self._dead: set[int] = set()  # of which the node was not told yet
        self._log_limit = LogLimit()
        self._is_refused = False
        self._next_look = 0.0
        self._renews_singly = False

    @classmethod
    def of(cls, work: Work, instance: str, model: str = "", model_digest: str = "") -> RemoteNode:
        """Raises ConfigError when the token or the CA cannot be read, or they would cross the network in plain."""
        refuse_plain(work)
        client = httpx2.Client(
            base_url=work.node.rstrip("/"),
            headers={"Authorization": f"Bearer {read_token(work)}"},
            verify=_trust(work),
            # A cut line says nothing: silence for a third of a lease leaves time to say it again.
            timeout=httpx2.Timeout(max(2.0, work.lease_seconds / 3), connect=_CONNECT_SECONDS),
            trust_env=False,  # a proxy for the internet is no way to a node in the house
        )
        return cls(client, work, instance, model, model_digest)

    @property
    def heartbeat_seconds(self) -> float:
        return min(self._work.heartbeat_seconds, self._lease_seconds / 4)

    def close(self) -> None:
        """Nothing to do before a fork: a child makes its own client and leaves this one alone."""

    # -- the worker's child ------------------------------------------------------------------------------------

    def claim(self, *, beside: bool = False) -> Claim | None:
        owner = secrets.token_hex(16)
        ask: dict[str, str | int | bool] = {
            "instance": self._instance,
            "pid": os.getpid(),
            "owner": owner,
            "model": self._model,
            "model_digest": self._model_digest,
        }
        if beside:  # said only then: a node of an older version does not know the word
            ask["beside"] = True
        try:
            answer = self._call("POST", "/v1/claims", json=ask)
        except NodeAway as problem:
            if self._log_limit.allows():
                log.error("no work can be claimed", extra={"error": str(problem)})
            return None
        if answer.status_code == 204:
            return None
        task = self._told(Task, answer)
        self._lease_seconds = task.lease_seconds
        return claim_of(task, owner)

    def renew(self, claims: Sequence[Claim]) -> set[str]:
        if len(claims) > 1 and not self._renews_singly:
            leases = Leases(owners=tuple(claim.owner for claim in claims))
            answer = self._call("PUT", "/v1/leases", patience=0, accept=(404, 405), json=leases.model_dump())
            if answer.is_success:
                return set(self._told(Lost, answer).owners)
            self._renews_singly = True  # a node of an older version
        return {claim.owner for claim in claims if not self._renewed(claim)}

    def _renewed(self, claim: Claim) -> bool:
        """False when it is lost. A line that is cut between two claims keeps none of the others."""
        try:
            self._call("PUT", f"/v1/claims/{claim.job.job_id}/lease", claim=claim, patience=0)
        except LostClaim:
            return False
        except NodeAway:
            pass  # the next beat may get through
        return True

    def release(self, claim: Claim) -> None:
        self._call("DELETE", f"/v1/claims/{claim.job.job_id}", claim=claim)

    def charge(self, claim: Claim, code: str, sentence: str) -> None:
        trouble = Trouble(code=code, sentence=sentence[:400])
        try:
            self._call("POST", f"/v1/claims/{claim.job.job_id}/trouble", claim=claim, json=trouble.model_dump())
        except (LostClaim, NodeAway) as problem:
            log.warning("a film's trouble could not be told", extra=claim.job.log_context() | {"error": str(problem)})

    def source(self, claim: Claim) -> bytes:
        answer = self._call("GET", f"/v1/claims/{claim.job.job_id}/source", claim=claim, accept=(200, 410), paced=True)
        if answer.status_code == 410:
            raise SourceDamaged("The stored film is gone from the spool.")
        return answer.content

    def known(self, claim: Claim, content_sha256: str, model_digest: str) -> Known:
        content = Content(content_sha256=content_sha256, model_digest=model_digest)
        answer = self._call("POST", f"/v1/claims/{claim.job.job_id}/content", claim=claim, json=content.model_dump())
        seen = self._told(Seen, answer)
        return Known(seen.revision, seen.kinds)

    def store(self, claim: Claim, name: str, data: bytes) -> tuple[str, str]:
        path = f"/v1/claims/{claim.job.job_id}/objects/{name}"
        answer = self._call("PUT", path, claim=claim, content=data, accept=(413,), paced=True)
        if answer.status_code == 413:
            raise Refused("result-too-large", f"{name} has {len(data)} bytes, more than the node takes (serve.max_object_mb).")
        kept = self._told(Kept, answer)
        if kept.sha256 != hashlib.sha256(data).hexdigest():
            raise NodeAway("the node kept other bytes than were sent: the line or its disk is not sound")
        return "", kept.sha256

    def finish(self, claim: Claim, outcome: Outcome) -> Job:
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
            objects=tuple(Returned(role=one.role, variant=one.variant, sha256=one.sha256) for one in outcome.objects),
            notes=outcome.notes,
            threshold=outcome.threshold,
        )
        path = f"/v1/claims/{claim.job.job_id}/result"
        ended = self._told(Ended, self._call("POST", path, claim=claim, json=result.model_dump()))
        return replace(
            claim.job,
            state=State(ended.state),
            same_as=ended.same_as,
            finding=outcome.finding,
            code=outcome.code,
            seconds=outcome.seconds,
        )

    # -- the worker's parent -----------------------------------------------------------------------------------

    def ready(self) -> int:
        self._next_look = time.monotonic() + _LOOK_SECONDS
        return self._told(Ready, self._call("GET", "/v1/ready", patience=0)).ready

    def reap(self) -> bool:
        """Tell the node which of our processes live, each time one has died. True: only the node knows who has a film."""
        living, _ = children_of(os.getpid())
        self._dead |= self._children - living
        self._children = living
        if self._dead:
            body = {"instance": self._instance, "pids": sorted(living), "dead": sorted(self._dead)}
            self._call("POST", "/v1/living", patience=0, json=body)
            self._dead = set()
        elif time.monotonic() > self._next_look:
            self.ready()  # where Redis wakes us nobody else would notice that our token was revoked
        return True

    # -- the line ----------------------------------------------------------------------------------------------

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
        """One request, said again until it is answered or `patience` (seconds; default: as long as a lease) is over. `paced`:
        all that it carries has a third of the time that a film may take: a slow line is no fault of the film.

        Raises LostClaim for 409, NodeAway for everything else that is no success.
        """
        patience = self._work.time_limit_seconds / 3 if paced else patience
        until = time.monotonic() + (self._lease_seconds if patience is None else patience)
        headers = {OWNER_HEADER: claim.owner} if claim else {}
        while True:
            try:
                answer = (
                    self._carried(method, path, headers, body)
                    if paced
                    else self._client.request(method, path, headers=headers, **body)
                )
                problem = None if answer.status_code < 500 and answer.status_code != 429 else f"status {answer.status_code}"
            except (httpx2.RequestError, OSError) as error:  # a body that cannot be decoded is one, and no TransportError
                problem = connection_errors.why(error, host=self._client.base_url.host, ca_key="work.node_ca")
            if problem is None:
                break
            if time.monotonic() + _AGAIN_SECONDS > until:
                raise NodeAway(f"{self._work.node} does not answer ({problem})")
            time.sleep(_AGAIN_SECONDS)
        if answer.status_code == 401 and self._has_a_new_token():
            return self._call(method, path, claim=claim, patience=patience, accept=accept, paced=paced, **body)
        if answer.status_code not in (401, 403) and self._is_refused:
            self._is_refused = False
            log.info("the node takes our token again")
        if answer.is_success or answer.status_code in accept:
            return answer
        if answer.status_code == 409:
            raise LostClaim("the node says that the claim is not ours (any more)")
        if answer.status_code in (401, 403):
            self._is_refused = True
            raise NodeAway(
                f"{self._work.node} does not know our token: it was revoked or replaced; `workers add NAME` on the node makes "
                "a new one for work.token_file, which is read again without a restart"
            )
        raise NodeAway(f"{self._work.node} answered {answer.status_code} to {method} {path.split('/')[-1]}")

    def _has_a_new_token(self) -> bool:
        """Whether another token lies in the file than the one that was used: `workers add` made it meanwhile."""
        try:
            header = f"Bearer {read_token(self._work)}"
        except ConfigError:
            return False
        changed, self._client.headers["Authorization"] = header != self._client.headers["Authorization"], header
        return changed

    def _told(self, kind: type[T], answer: httpx2.Response) -> T:
        """Raises NodeAway for what is no answer of a node: a proxy's page, for one."""
        try:
            return kind.model_validate_json(answer.content)
        except ValueError as error:
            raise NodeAway(f"{self._work.node} answers, but not as a node does: what stands before it?") from error

    def _carried(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> httpx2.Response:
        """One request, its bytes watched on both ways. Raises NodeAway."""
        began, most = time.monotonic(), self._work.time_limit_seconds / 3

        def paced(chunks: Iterable[bytes]) -> Iterator[bytes]:
            done = 0
            for chunk in chunks:
                yield chunk
                done += len(chunk)
                if (took := time.monotonic() - began) > most:
                    raise NodeAway(
                        f"the line to {self._work.node} is too slow for this film: {done / took / 1000:.0f} kB/s "
                        "(work.time_limit_seconds, or a better line)"
                    )

        body = body | {"timeout": httpx2.Timeout(min(most, self._client.timeout.read or most), connect=_CONNECT_SECONDS)}
        if data := body.get("content"):
            headers = headers | {"Content-Length": str(len(data))}
            body = body | {"content": paced(data[at : at + _PIECE] for at in range(0, len(data), _PIECE))}
        with self._client.stream(method, path, headers=headers, **body) as answer:
            held = b"".join(paced(answer.iter_raw()))
        return httpx2.Response(answer.status_code, headers=answer.headers, content=held, request=answer.request)


def refuse_plain(work: Work) -> None:
    """Raises ConfigError when the node is called on another machine without TLS and nobody allowed it."""
    url = urlsplit(work.node)
    if url.scheme != "https" and not work.allow_plain and not is_loopback(url.hostname or ""):
        raise ConfigError(
            f"work.node: {work.node} is not this machine, and without TLS token and films would cross the network in plain; "
            "call it by https:// (serve.tls_certificate there; or set work.allow_plain = true, behind a tunnel)"
        )


def read_token(work: Work) -> str:
    """Raises ConfigError with the remedy."""
    if not work.token_file:
        raise ConfigError("work.token_file: not set; `segmenter-worker workers add NAME` on the node prints a token for it")
    try:
        token = Path(work.token_file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if re.fullmatch(r"[A-Za-z0-9_-]{40,}", Path(work.token_file).name):  # it would be shown
            raise ConfigError("work.token_file: is not the token, but the name of a file that holds it") from error
        said = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"work.token_file: {work.token_file} cannot be read ({said})") from error
    if not token.isascii() or not token:
        raise ConfigError(f"work.token_file: {work.token_file} holds no token")
    return token


def _trust(work: Work) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=work.node_ca or None)
    except (OSError, ssl.SSLError) as error:
        said = error.strerror or getattr(error, "reason", None) or type(error).__name__
        raise ConfigError(f"work.node_ca: {work.node_ca} holds no certificates in PEM that can be read ({said})") from error
