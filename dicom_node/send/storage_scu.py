"""SCU: sends stored bytes and turns the answer into delivered, refused or try again later.

The bytes go out as they lie on disk, their sha256 is verified first; a destination that takes Implicit VR Little Endian
only gets the same elements with other headers (implicit_vr.py). A try whose outcome is not known is repeated with the
identical bytes: a PACS that has them already answers 0000 or 0111.

Whatever one delivery raises settles that delivery, and no other waits for it.
"""

from __future__ import annotations

import hashlib
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pydicom
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.dimse.association_pdu import is_uid
from dicom_node.dimse.hosts import is_loopback
from dicom_node.dimse.implicit_vr import EXPLICIT, IMPLICIT, implicit
from dicom_node.dimse.requestor import RequestorAssociation
from dicom_node.dimse.status import Verdict, sentence, verdict
from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Peer
from dicom_node.send.associate import NoAssociation, associate, not_accepted
from dicom_node.send.backoff import Decision, Policy, decide
from dicom_node.send.commitment_request import NOT_SUPPORTED, CommitmentRequests, commitment_peer, request_context
from dicom_node.storage.commitments import Commitments
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import MAX_CRASHES, Outbox
from dicom_node.storage.part10 import dataset_bytes
from dicom_node.storage.records import Delivery, DeliveryState
from dicom_node.storage.spool import Spool

log = logging.getLogger(__name__)

DESTINATIONS_AT_ONCE = 8
PER_ASSOCIATION = 50  # objects
LEDGER_TROUBLE_SECONDS = 2.0
_DAMAGED = "the stored object no longer has its sha256: restore it from a backup, then `retry`"


class Sender:
    """Sends the deliveries that are due: one association per destination at a time, several destinations at once."""

    def __init__(self, config: Config, spool: Spool, ledger: Ledger, outbox: Outbox) -> None:
        self._config = config
        self._spool = spool
        self._ledger = ledger
        self._outbox = outbox
        send = config.send
        self._policy = Policy(send.first_delay_seconds, send.max_delay_seconds, send.give_up_days * 86_400)
        self._stop = threading.Event()  # replaced by the one that `run` is given
        self._longest_try = send.max_delay_seconds + send.connect_seconds + send.response_seconds

    def run(self, stop: threading.Event, poll_seconds: float) -> None:
        """Until `stop` is set: then the C-STORE in progress is finished and no other is begun. The ledger is read every
        `poll_seconds`. Raises what the ledger raises; the supervisor starts another sender."""
        self._stop = stop
        again = self._outbox.recover()
        if again:
            log.warning("deliveries with an unknown outcome will be sent again", extra={"deliveries": again})
        busy: dict[str, Future[None]] = {}
        alone: Future[None] | None = None  # of a delivery during which senders died
        commitments = Commitments(self._ledger.store, self._policy.max_delay)
        with (
            CommitmentRequests(self._config, commitments, stop) as requests,
            ThreadPoolExecutor(DESTINATIONS_AT_ONCE, thread_name_prefix="deliver") as pool,
        ):
            while not stop.wait(poll_seconds):
                for destination in [name for name, future in busy.items() if future.done()]:
                    busy.pop(destination).result()  # an internal error ends the process: the supervisor restarts it
                if self._ledger.mode() == "paused":
                    continue
                if self._config.work.on_resend == "redeliver":
                    self._outbox.redeliver_resent()
                if alone is not None and not alone.done():
                    continue
                if suspect := self._outbox.suspect(self._policy.max_delay):
                    if not busy:
                        alone = busy[suspect.destination] = pool.submit(self._serve, suspect.destination, [suspect], stop)
                    continue
                for destination, dues in self._outbox.due(self._policy.max_delay, besides=busy, limit=PER_ASSOCIATION).items():
                    if len(busy) < DESTINATIONS_AT_ONCE:
                        busy[destination] = pool.submit(self._serve, destination, dues, stop)
                requests.start_due()

    def _serve(self, destination: str, dues: Sequence[Delivery], stop: threading.Event) -> None:
        """Send to one destination what is due. Raises what the ledger raises, and nothing else."""
        peer = self._config.peers.get(destination)
        sendable = [(one, syntax) for one in dues if (syntax := self._syntax_or_settled(one, destination, peer))]
        if not sendable or peer is None:
            return
        try:
            pairs = sorted({(one.object.sop_class_uid, syntax) for one, syntax in sendable})
            association = associate(self._config, destination, storage_contexts(pairs))
        except NoAssociation as why:
            for one, _ in sendable:
                reason = not_accepted(why.rejected, one.object.sop_class_uid) if why.rejected else str(why)
                self._settle_all([one], destination, why.verdict, reason)
            return
        except Exception as problem:  # noqa: BLE001  an internal error: of this destination, not of all
            reason = f"no association, by an internal error ({type(problem).__name__})"
            self._settle_all([one for one, _ in sendable], destination, Verdict.TRY_LATER, reason)
            return
        try:
            for one, syntax in sendable:
                if stop.is_set() or not association.is_established or self._ledger.mode() == "paused":
                    break  # still pending: the next round takes it
                self._send(association, one, syntax, destination)
        finally:
            association.close()

    def _settle_all(self, deliveries: Sequence[Delivery], destination: str, what: Verdict, reason: str) -> None:
        for one in deliveries:
            if self._outbox.sending(one):
                self._settle(one, destination, what, None, reason)

    def _syntax_or_settled(self, delivery: Delivery, destination: str, peer: Peer | None) -> str | None:
        try:
            return self._syntax_to_go(delivery, destination, peer)
        except sqlite3.Error:
            raise
        except Exception as problem:  # noqa: BLE001  an internal error with this object
            if self._outbox.sending(delivery):
                self._settle_crash(delivery, destination, problem)
            return None

    def _syntax_to_go(self, delivery: Delivery, destination: str, peer: Peer | None) -> str | None:
        """The transfer syntax of an object that may be sent; None, and settled, for others. The last check."""
        what = Verdict.REFUSED
        if peer is None:
            reason = f"[peers] has no entry {destination}: add host and port, then `retry`"
        elif self._is_demo(delivery) and not is_loopback(peer.host):
            reason = "made by a demo model, and the destination is not this machine (segment.allow_demo_model)"
        else:
            try:
                if self._bytes(delivery) is not None:
                    syntax = self._syntax(delivery)
                    if is_uid(syntax):
                        return syntax
                    reason = "the stored object names no transfer syntax: `rerun` its job"
                else:
                    reason = _DAMAGED
            except OSError as error:  # too many open files, for one
                what, reason = Verdict.TRY_LATER, f"the stored object cannot be read now ({error.strerror})"
        if self._outbox.sending(delivery):
            self._settle(delivery, destination, what, None, reason)
        return None

    def _is_demo(self, delivery: Delivery) -> bool:
        return delivery.object.intended_use == "demo" and not self._config.segment.allow_demo_model

    def _bytes(self, delivery: Delivery) -> bytes | None:
        """The stored file; None when it is not what was stored. Raises OSError when it cannot be read now."""
        try:
            data = self._spool.read(delivery.object.path)
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == delivery.object.sha256 else None

    def _syntax(self, delivery: Delivery) -> str:
        meta = pydicom.filereader.read_file_meta_info(self._spool.directory / delivery.object.path)
        return str(meta.get("TransferSyntaxUID", ""))

    def _send(self, association: RequestorAssociation, delivery: Delivery, syntax: str, destination: str) -> None:
        context = accepted_context(association.accepted_contexts, delivery.object.sop_class_uid, syntax)
        if not self._outbox.sending(delivery):
            return
        if context is None:
            reason = not_accepted(association.rejected_contexts, delivery.object.sop_class_uid)
            self._settle(delivery, destination, Verdict.REFUSED, None, reason)
            return
        try:
            status = self._store(association, delivery, context, syntax)
        except sqlite3.Error:
            raise
        except _Damaged:
            self._settle(delivery, destination, Verdict.REFUSED, None, _DAMAGED)
        except OSError as error:  # the association died under it
            reason = f"the association ended while sending ({type(error).__name__})"
            self._settle(delivery, destination, Verdict.TRY_LATER, None, reason)
        except Exception as problem:  # noqa: BLE001  whatever one delivery raises settles that delivery
            association.abort()
            self._settle_crash(delivery, destination, problem)
        else:
            if status is None:
                reason = "no answer: the outcome is unknown, the identical bytes will be sent again"
                self._settle(delivery, destination, Verdict.TRY_LATER, None, reason)
            else:
                self._settle(delivery, destination, verdict(status), status, sentence(status))

    def _store(
        self, association: RequestorAssociation, delivery: Delivery, context: PresentationContext, syntax: str
    ) -> int | None:
        data = self._bytes(delivery)
        if data is None:
            raise _Damaged
        dataset = bytes(dataset_bytes(data))
        if context.transfer_syntax[0] != syntax:
            dataset = implicit(dataset)
        what = delivery.object
        return association.store(context, what.sop_class_uid, what.sop_instance_uid, dataset)

    def _settle_crash(self, delivery: Delivery, destination: str, problem: Exception) -> None:
        """An internal error with this object: it is tried again, but not for ever."""
        crashes = delivery.crashes + 1
        log.error("an object cannot be sent", exc_info=problem, extra={"job": delivery.job_id, "destination": destination})
        what, reason = Verdict.TRY_LATER, f"the sender met an unexpected error with this object ({type(problem).__name__})"
        if crashes >= MAX_CRASHES:
            what, reason, crashes = Verdict.REFUSED, f"{reason}, {crashes} times; look at the object, then `retry`", 0
        self._settle(delivery, destination, what, None, reason, crashes=crashes)

    def _settle(
        self, delivery: Delivery, destination: str, what: Verdict, status: int | None, reason: str, *, crashes: int = 0
    ) -> None:
        tries = delivery.attempts + 1
        # The wall clock may have been set forward: no more time has passed than so many tries and waits can take.
        age = min(time.time() - delivery.created_at, tries * self._longest_try)
        decision = decide(what, tries, age, self._policy, random.random())
        self._record(delivery, decision, status, reason, crashes)
        level = logging.INFO if decision.state is DeliveryState.DELIVERED else logging.WARNING
        context = {
            "job": delivery.job_id,
            "sop_instance_uid": delivery.object.sop_instance_uid,
            "destination": destination,
            "status": None if status is None else f"{status:04X}",
            "reason": reason,
            "next_try_seconds": round(decision.delay, 1) if decision.delay else None,
        }
        log.log(level, "delivery %s", decision.state, extra=context)

    def _record(self, delivery: Delivery, decision: Decision, status: int | None, reason: str, crashes: int) -> None:
        """Settle. A known outcome is kept until the ledger can be written: without it the object would be sent again."""
        while True:
            try:
                self._outbox.settle(
                    delivery, decision.state, status=status, reason=reason, delay=decision.delay, crashes=crashes
                )
                return
            except sqlite3.OperationalError as error:  # a full disk, for one
                log.error("an outcome cannot be written, tried again", extra={"error": str(error)})
                if self._stop.wait(LEDGER_TROUBLE_SECONDS):
                    raise


class _Damaged(Exception):
    """The bytes on disk are not those that were stored."""


def commitment_problem(config: Config, destination: str) -> str | None:
    """Why a peer does not accept requests for storage commitment (PS3.4 J.3); None when it does. Nothing is requested."""
    peer = commitment_peer(destination, config.peers[destination])
    where = f"({peer.ae_title} at {peer.host}:{peer.port})"
    try:
        associate(config, destination, [request_context()], peer).close()
    except NoAssociation as why:
        return f"{NOT_SUPPORTED if why.verdict is Verdict.REFUSED else why} {where}"
    except Exception as problem:  # noqa: BLE001  whatever a peer answers becomes a sentence
        return f"{destination}: its answer cannot be used ({type(problem).__name__}) {where}"
    return None


def storage_context(sop_class: str, syntax: str) -> PresentationContext:
    """What is proposed for objects of one SOP class and transfer syntax: that one, and the default that everybody accepts
    (PS3.5 10.1 a)."""
    return build_context(sop_class, [syntax, IMPLICIT] if syntax == EXPLICIT else [syntax])


def storage_contexts(pairs: Sequence[tuple[str, str]]) -> list[PresentationContext]:
    """Two contexts for each SOP class and transfer syntax: where the destination chooses the default in the first, the stored
    bytes can still be sent unchanged in the second (PS3.8 9.3.2.2)."""
    return [one for pair in pairs for one in (storage_context(*pair), build_context(pair[0], [pair[1]]))]


def accepted_context(accepted: Sequence[PresentationContext], sop_class: str, syntax: str) -> PresentationContext | None:
    """The accepted context to send an object in: its own transfer syntax, else the default; None when there is neither."""
    of_class = {str(one.transfer_syntax[0]): one for one in accepted if one.abstract_syntax == sop_class}
    return of_class.get(syntax) or (of_class.get(IMPLICIT) if syntax == EXPLICIT else None)
