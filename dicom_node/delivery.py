"""SCU: sends stored bytes and turns the answer into delivered, refused or try again later.

The bytes go out as they lie on disk (no decoding, no re-encoding), their sha256 is verified first. A try whose outcome
is not known is repeated with the identical bytes: a PACS that has them already answers 0000 or 0111.
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
from pathlib import Path

import pydicom
import pynetdicom
from pynetdicom import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.caller import NO_CONTEXT, NoAssociation, associate
from dicom_node.commitment_request import NOT_SUPPORTED, CommitmentRequests, request_context, who_commits
from dicom_node.commitments import Commitments
from dicom_node.config import Config, Peer
from dicom_node.job import Delivery, DeliveryState
from dicom_node.ledger import Ledger
from dicom_node.model import is_loopback
from dicom_node.outbox import Outbox
from dicom_node.retry import Decision, Policy, decide
from dicom_node.spool import Spool
from dicom_node.status import Verdict, sentence, verdict

log = logging.getLogger(__name__)

# Send the file's own bytes instead of decoding and encoding the dataset (this process receives nothing).
pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True

VERIFICATION = "1.2.840.10008.1.1"
DESTINATIONS_AT_ONCE = 8
PER_ASSOCIATION = 50
LEDGER_TROUBLE_SECONDS = 2.0


class Sender:
    """Delivers what is due, one association per destination at a time, destinations side by side."""

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
        """Until `stop` is set: then the object on the wire is finished and no other is begun."""
        self._stop = stop
        again = self._outbox.recover()
        if again:
            log.warning("deliveries with an unknown outcome go again", extra={"deliveries": again})
        busy: dict[str, Future[None]] = {}
        commitments = Commitments(self._ledger.store, self._policy.max_delay)
        with (
            CommitmentRequests(self._config, commitments, stop) as requests,
            ThreadPoolExecutor(DESTINATIONS_AT_ONCE, thread_name_prefix="deliver") as pool,
        ):
            while not stop.wait(poll_seconds):
                for destination in [name for name, future in busy.items() if future.done()]:
                    busy.pop(destination).result()  # an error of ours ends the process: the supervisor restarts it
                if self._ledger.mode() == "paused":
                    continue
                if self._config.work.on_resend == "redeliver":
                    self._outbox.redeliver_resent()
                for destination, dues in self._outbox.due(self._policy.max_delay, besides=busy, limit=PER_ASSOCIATION).items():
                    if len(busy) < DESTINATIONS_AT_ONCE:
                        busy[destination] = pool.submit(self._serve, destination, dues, stop)
                requests.look()

    def _serve(self, destination: str, dues: Sequence[Delivery], stop: threading.Event) -> None:
        peer = self._config.peers.get(destination)
        sendable = [(one, syntax) for one in dues if (syntax := self._syntax_to_go(one, destination, peer))]
        if not sendable or peer is None:
            return
        pairs = sorted({(one.object.sop_class_uid, syntax) for one, syntax in sendable})
        try:
            contexts = [storage_context(*pair) for pair in pairs]
            association = associate(self._config, destination, contexts)
        except NoAssociation as why:
            for one, _ in sendable:
                if self._outbox.sending(one):
                    self._settle(one, destination, why.verdict, None, str(why))
            return
        try:
            for one, syntax in sendable:
                if stop.is_set() or not association.is_established:
                    break  # still pending: the next round takes it
                self._send(association, one, syntax, destination)
        finally:
            if association.is_established:
                association.release()

    def _syntax_to_go(self, delivery: Delivery, destination: str, peer: Peer | None) -> str | None:
        """The transfer syntax of what may go out: the last door before the network. None, and settled, for the rest."""
        what = Verdict.REFUSED
        if peer is None:
            reason = f"[peers] has no entry {destination}: add host and port, then `retry`"
        elif self._is_demo(delivery) and not is_loopback(peer.host):
            reason = "made by a demo model, and the destination is not this machine (segment.allow_demo_model)"
        else:
            try:
                if not self._damaged(delivery):
                    return self._syntax(delivery)
                reason = "the stored object does not have its sha256 any more: restore it from a backup, then `retry`"
            except OSError as error:  # too many open files, for one
                what, reason = Verdict.TRY_LATER, f"the stored object can not be read now ({error.strerror})"
        if self._outbox.sending(delivery):
            self._settle(delivery, destination, what, None, reason)
        return None

    def _is_demo(self, delivery: Delivery) -> bool:
        return delivery.object.intended_use == "demo" and not self._config.segment.allow_demo_model

    def _damaged(self, delivery: Delivery) -> bool:
        """Raises OSError when that can not be found out now."""
        try:
            return hashlib.sha256(self._spool.read(delivery.object.path)).hexdigest() != delivery.object.sha256
        except FileNotFoundError:
            return True

    def _syntax(self, delivery: Delivery) -> str:
        meta = pydicom.filereader.read_file_meta_info(self._file(delivery))
        return str(meta.TransferSyntaxUID)

    def _file(self, delivery: Delivery) -> Path:
        return self._spool.directory / delivery.object.path

    def _send(self, association: Association, delivery: Delivery, syntax: str, destination: str) -> None:
        accepted = {(context.abstract_syntax, *context.transfer_syntax) for context in association.accepted_contexts}
        if not self._outbox.sending(delivery):
            return
        if (delivery.object.sop_class_uid, syntax) not in accepted:
            self._settle(delivery, destination, Verdict.REFUSED, None, NO_CONTEXT)
            return
        try:
            status = association.send_c_store(self._file(delivery)).get("Status")
        except (RuntimeError, ValueError, OSError) as error:  # the association died under it
            status, lost = None, f"the association ended while sending ({type(error).__name__})"
        else:
            lost = "no answer: the outcome is unknown, the identical bytes go again"
        if status is None:
            self._settle(delivery, destination, Verdict.TRY_LATER, None, lost)
        else:
            self._settle(delivery, destination, verdict(status), status, sentence(status))

    def _settle(self, delivery: Delivery, destination: str, what: Verdict, status: int | None, reason: str) -> None:
        tries = delivery.attempts + 1
        # The wall clock may have been set forward: no more time has passed than so many tries and waits can take.
        age = min(time.time() - delivery.created_at, tries * self._longest_try)
        decision = decide(what, tries, age, self._policy, random.random())
        self._write_down(delivery, decision, status, reason)
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

    def _write_down(self, delivery: Delivery, decision: Decision, status: int | None, reason: str) -> None:
        """Settle. An outcome that is known is kept until the ledger takes it: to forget it would send the object again."""
        while True:
            try:
                self._outbox.settle(delivery, decision.state, status=status, reason=reason, delay=decision.delay)
                return
            except sqlite3.OperationalError as error:  # a full disk, for one
                log.error("an outcome can not be written, tried again", extra={"error": str(error)})
                if self._stop.wait(LEDGER_TROUBLE_SECONDS):
                    raise


def commits(config: Config, destination: str) -> str | None:
    """Whether a peer takes requests for storage commitment; None when it does, else the sentence that says what is wrong."""
    peer = who_commits(destination, config.peers[destination])
    try:
        associate(config, destination, [request_context()], peer).release()
    except NoAssociation as why:
        reason = NOT_SUPPORTED if why.verdict is Verdict.REFUSED else str(why)
        return f"{reason} ({peer.ae_title} at {peer.host}:{peer.port})"
    return None


def storage_context(sop_class: str, syntax: str) -> PresentationContext:
    """What is proposed for objects of one class and syntax."""
    return build_context(sop_class, [syntax])


def echo_context() -> PresentationContext:
    """What a C-ECHO of ours proposes."""
    return build_context(VERIFICATION)


def echo(config: Config, destination: str) -> str | None:
    """A real C-ECHO to a peer; None when it answered, else the sentence that says what is wrong."""
    peer = config.peers[destination]
    try:
        association = associate(config, destination, [echo_context()])
    except NoAssociation as why:
        return f"{why} at {peer.host}:{peer.port}"
    status = association.send_c_echo().get("Status")
    association.release()
    return None if status == 0x0000 else f"{destination}: C-ECHO was answered with {status!r}"
