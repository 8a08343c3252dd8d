"""Requests storage commitment (PS3.4 J.3.2): N-ACTION with the delivered objects, in batches per destination.

Order: association, request row committed in the ledger, N-ACTION. So a report always finds its request, and a sender that
is killed in between loses nothing. After the N-ACTION the association stays open for a moment: some destinations report on
it. The others open one to our receiver, minutes or days later.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import Association, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.dimse.commitment_report import PUSH_MODEL, PUSH_MODEL_INSTANCE, SYNTAXES, Reports
from dicom_node.dimse.status import Verdict
from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Peer
from dicom_node.send.associate import NoAssociation, associate
from dicom_node.send.backoff import Policy, decide
from dicom_node.storage.commitments import Commitments, UncommittedDelivery, committing

log = logging.getLogger(__name__)

NOT_SUPPORTED = "the destination does not support storage commitment: enable it there, or set commit = false for it"
AT_ONCE = 4  # destinations
PER_REQUEST = 500  # references
POLL_SECONDS = 1.0  # between two looks at the ledger
LEDGER_TROUBLE_SECONDS = 5.0  # until the next look when it could not be written
GATHER_SECONDS = 2.0  # the first object of a batch waits so long for others
LINGER_SECONDS = 10.0  # the association stays open for a report on it

# No such SOP class or action, not supported, not authorised, unrecognised operation (PS3.7 annex C): waiting does not help.
PERMANENT = (0x0118, 0x0122, 0x0123, 0x0124, 0x0211)


class CommitmentRequests:
    """Makes the requests that are due; the sender calls `start_due` in every round."""

    def __init__(self, config: Config, commitments: Commitments, stop: threading.Event) -> None:
        self._config = config
        self._peers = committing(config)
        self._commitments = commitments
        self._reports = Reports(config, commitments)
        self._stop = stop
        self._again_seconds = config.send.commit_again_hours * 3600
        self._policy = Policy(config.send.first_delay_seconds, config.send.max_delay_seconds, float("inf"))
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="commit")
        self._busy: dict[str, Future[None]] = {}
        self._next_poll = 0.0  # monotonic seconds, as in _not_before
        self._not_before: dict[str, float] = {}
        self._failures: dict[str, int] = {}  # in a row

    def __enter__(self) -> CommitmentRequests:
        if self._peers and (lost := self._commitments.recover()):
            log.warning("commitment requests with an unknown outcome are made again", extra={"requests": lost})
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def start_due(self) -> None:
        """Start a request to every destination that has objects to commit to and no request in progress."""
        now = time.monotonic()
        if not self._peers or now < self._next_poll:
            return
        self._next_poll = now + POLL_SECONDS
        try:
            self._start_due(now)
        except sqlite3.OperationalError as error:  # a full disk, for one; a lost request is overdue one day
            log.error("commitment requests wait for the ledger", extra={"error": str(error)})
            self._next_poll = now + LEDGER_TROUBLE_SECONDS

    def _start_due(self, now: float) -> None:
        for name in [name for name, future in self._busy.items() if future.done()]:
            self._busy.pop(name).result()  # an internal error ends the process: the supervisor restarts it
        for name, peer in self._peers.items():
            if name in self._busy or now < self._not_before.get(name, 0.0):
                continue
            if overdue := self._commitments.release_overdue(name, self._again_seconds):
                log.warning("commitment requests were not answered", extra={"destination": name, "requests": overdue})
            batch = self._commitments.uncommitted(name, GATHER_SECONDS, PER_REQUEST)
            if batch:
                self._busy[name] = self._pool.submit(self._request, name, peer, batch)

    def _request(self, name: str, peer: Peer, batch: Sequence[UncommittedDelivery]) -> None:
        """One request. Raises only what the ledger raises: whatever a destination does counts as its failure."""
        try:
            self._associate_and_request(name, peer, batch)
        except sqlite3.Error:
            raise
        except Exception as problem:  # noqa: BLE001  see above
            self._put_off(name, batch, f"an internal error ({type(problem).__name__})", permanent=False)

    def _associate_and_request(self, name: str, peer: Peer, batch: Sequence[UncommittedDelivery]) -> None:
        response = ReportResponse()
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_N_EVENT_REPORT, self._report, [name, response]),
            (evt.EVT_PDU_SENT, response.sent),
        ]
        try:
            association = associate(self._config, name, [request_context()], commitment_peer(name, peer), handlers)
        except NoAssociation as why:
            is_permanent = why.verdict is Verdict.REFUSED
            self._put_off(name, batch, NOT_SUPPORTED if is_permanent else str(why), permanent=is_permanent)
            return
        try:
            self._send_request(association, name, batch, response)
        finally:
            association.close()

    def _send_request(
        self, association: Association, name: str, batch: Sequence[UncommittedDelivery], response: ReportResponse
    ) -> None:
        uid = self._commitments.open(name, batch)
        if uid is None:
            return
        try:
            answer, _ = association.send_n_action(
                action_information(uid, self._commitments.references(uid)), 1, PUSH_MODEL, PUSH_MODEL_INSTANCE
            )
            status = answer.get("Status")
        except sqlite3.Error:
            raise  # the ledger is in trouble, not the destination
        except Exception as problem:  # noqa: BLE001  the association ended, or the answer is unreadable
            log.warning("the N-ACTION failed", extra={"destination": name, "error": type(problem).__name__})
            association.abort()
            status = None
        if status == 0x0000:
            self._failures.pop(name, None)
            self._not_before.pop(name, None)
            self._commitments.accepted(uid)
            log.info("commitment requested", extra={"destination": name, "transaction_uid": uid, "objects": len(batch)})
            self._wait(association, uid, response)
            return
        if status in PERMANENT:
            reason = f"{NOT_SUPPORTED} (N-ACTION was answered with {status:04X})"
        elif status is None:
            reason = "no answer to the N-ACTION"
        else:
            reason = f"N-ACTION was answered with {status:04X}"
        self._commitments.failed(uid, reason)
        self._back_off(name, reason, permanent=status in PERMANENT)

    def _wait(self, association: Association, uid: str, response: ReportResponse) -> None:
        """Leave the association open until the report was answered, here or at our receiver."""
        until = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < until and association.is_established and not self._stop.is_set():
            if response.done.wait(0.1) or (not response.due and self._commitments.is_answered(uid)):
                return

    def _report(self, event: evt.Event, name: str, response: ReportResponse) -> tuple[int, None]:
        """An N-EVENT-REPORT on our own association; runs in the association's thread."""
        response.due = True
        request = cast(N_EVENT_REPORT, event.request)
        try:
            return int(self._reports.answer(request, event.context.transfer_syntax, {name}, name)), None
        finally:
            self._commitments.close()  # the connection of this thread

    def _put_off(self, name: str, batch: Sequence[UncommittedDelivery], reason: str, *, permanent: bool) -> None:
        self._commitments.not_requested(batch, reason)
        self._back_off(name, reason, permanent=permanent)

    def _back_off(self, name: str, reason: str, *, permanent: bool) -> None:
        """Wait as after a failed delivery; what only an administrator can change, as long as for an unanswered request."""
        self._failures[name] = self._failures.get(name, 0) + 1
        delay = decide(Verdict.TRY_LATER, self._failures[name], 0.0, self._policy, random.random()).delay
        if permanent:
            delay = max(delay, self._again_seconds)
        self._not_before[name] = time.monotonic() + delay
        log.warning(
            "commitment cannot be requested",
            extra={"destination": name, "reason": reason, "next_try_seconds": round(delay, 1)},
        )


class ReportResponse:
    """Whether our response to a report was sent: before that the association must not be released."""

    def __init__(self) -> None:
        self.due = False
        self.done = threading.Event()

    def sent(self, event: evt.Event) -> None:
        """Called by pynetdicom for every PDU that was sent."""
        if self.due and isinstance(event.pdu, P_DATA_TF):
            self.done.set()


def commitment_peer(name: str, peer: Peer) -> Peer:
    """The AE that commitment is requested from: the destination, or another AE at its host."""
    ae_title = peer.commit_ae_title or peer.ae_title or name
    return peer.model_copy(update={"ae_title": ae_title, "port": peer.commit_port or peer.port})


def request_context() -> PresentationContext:
    """The push model SOP class, to be proposed (PS3.4 J.3)."""
    return build_context(PUSH_MODEL, list(SYNTAXES))


def action_information(transaction_uid: str, references: Sequence[tuple[str, str]]) -> Dataset:
    """The N-ACTION's Transaction UID and Referenced SOP Sequence of (class UID, instance UID) (PS3.4 table J.3-1)."""
    items = []
    for class_uid, instance_uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, instance_uid
        items.append(item)
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = items
    return information
