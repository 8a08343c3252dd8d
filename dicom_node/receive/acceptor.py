"""One association from a peer: pynetdicom's, on a socket that cannot be made to wait for ever.

What the library leaves open and this file closes (all measured): a PDU may declare 4 GB; objects have no size limit; a
peer may send faster than it is answered; reads are 4 KiB; a request without its mandatory elements is never answered.
Deadlines are wall clock and enforced by closing the socket: the library's own start again with every byte.

It leans on internals of pynetdicom 3.0 (`_serve_request`, `_negotiate_as_acceptor`, `recv`, `_send`): the version is
pinned, and tests/receive/test_storage_scp.py fails when they move.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_node.dimse.association_pdu import ASSOCIATE_AC, P_DATA_TF, UNSAID_LENGTH, Request, is_uid
from dicom_node.dimse.status import Rejection
from dicom_node.dimse.transport import IncomingLine
from dicom_node.dimse.pynetdicom_adapter import Messages, Upper
from dicom_node.receive.association_limit import Seat
from dicom_node.receive.pending import Guest
from dicom_node.runtime.config import Receive

if TYPE_CHECKING:
    from dicom_node.receive.server import Server

log = logging.getLogger(__name__)

_QUIET = 1.0  # seconds without a byte after which a stopping server ends an association between two objects


class Desk(NamedTuple):
    """Who decides. All are called from the association's own thread."""

    admit: Callable[[Inbound], Rejection | None]
    store: Callable[[Inbound, C_STORE, PresentationContext], tuple[int, str]]  # status, Error Comment (LO, <= 64)
    closed: Callable[[Inbound], None]
    report: Callable[[Inbound, N_EVENT_REPORT, PresentationContext], int]  # status
    nothing: Callable[[Inbound], None]  # no presentation context could be accepted


class Incoming(Messages):
    """DIMSE whose answers fit the peer, and its UIDs the library."""

    assoc: Inbound

    @property
    def maximum_pdu_size(self) -> int:
        """Of the peer, in bytes."""
        return self.assoc.requestor.maximum_length or UNSAID_LENGTH


class Doorkeeper(ACSE):
    """Negotiation behind the gate. A gate that raises ends the association: it never opens by mistake."""

    def _negotiate_as_acceptor(self) -> None:
        association = cast(Inbound, self.assoc)
        request = association.requestor.primitive
        if not isinstance(request, A_ASSOCIATE):
            association.kill()  # the peer left before it was looked at
            return
        rejection = association.server.desk.admit(association)
        if rejection is not None:
            self.send_reject(*rejection.value)
            association.kill()
            return
        super()._negotiate_as_acceptor()
        if association.is_established and not association.accepted_contexts:
            association.server.desk.nothing(association)


class Inbound(Association):
    """One association from a peer."""

    def __init__(self, server: Server, guest: Guest, request: Request) -> None:
        super().__init__(server.ae, MODE_ACCEPTOR)
        self.server = self._server = server
        self.name = f"AcceptorThread@{guest.host}:{guest.address[1]}"  # the library finds acceptors by this name
        self.dul = Upper(self)
        self.acse_timeout, self.network_timeout = server.ae.acse_timeout, server.ae.network_timeout  # its timers
        self.dimse = Incoming(self)
        self.acse = Doorkeeper(self)
        self.connection = IncomingLine(self, guest.socket, request.pdu, server.ae.maximum_pdu_size)
        self.set_socket(self.connection)
        self.host = _plain(guest.host)
        self.asked = request
        self.calling_ae, self.called_ae = request.calling_ae, request.called_ae
        self.max_object = server.receive.max_object_mb * 2**20  # bytes
        self.since = guest.since  # monotonic seconds of the TCP accept
        self.admitted = False  # past the gate; counts as an association from here on
        self.seat: Seat | None = None
        self.is_busy = False  # an answer is being worked out: not the peer's silence
        self.ending_at: float | None = None
        self.received = 0  # objects that were answered with success
        self.may_store = True
        self.speaks_for: frozenset[str] = frozenset()  # peers whose commitment it may report
        self.nothing_accepted = ""  # "no class accepted", "no syntax accepted"
        self.journal_id: int | None = None
        self._describe(server, guest)

    @property
    def peer(self) -> str:
        """For log lines. What cannot be printed in an AE title is escaped already."""
        return f"'{self.calling_ae}' at {self.host}"

    @property
    def outcome(self) -> str:
        """released, aborted, rejected or lost (the connection ended without a word), or why there was nothing to say."""
        if self.admitted and self.nothing_accepted:
            return self.nothing_accepted
        if self.is_released:
            return "released"
        if not self.admitted:
            return "rejected"
        return "aborted" if self._sent_abort or self.is_aborted else "lost"

    def renumbered(self, pdu: bytearray) -> bytearray:
        """A P-DATA-TF with the library's numbers of the contexts."""
        return self.asked.received(pdu)

    def answered(self, pdu: bytes) -> bytes:
        """A PDU of ours with the peer's numbers."""
        if pdu[0] == ASSOCIATE_AC:
            return self.asked.answer(pdu)
        return self.asked.sent(pdu) if pdu[0] == P_DATA_TF else pdu

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception:  # the edge of the thread: nobody above it could be told
            log.exception("association with %s ended by an error of ours", self.peer)
        finally:
            self.dul.kill_dul()
            self.connection.end()
            self.dimse.message = None  # half an object need not wait for the garbage collector
            self.server.gone(self)

    def keep_time(self, now: float, receive: Receive) -> None:
        """End the association when one of its deadlines has passed."""
        reading_since = self.connection.pdu_since
        if self.ending_at is not None:
            if now > self.ending_at:
                self.connection.end()
        elif not self.admitted and now - self.since > receive.establish_seconds:
            self._end(f"no association within {receive.establish_seconds:g} s", now)
        elif reading_since is not None and now - reading_since > receive.pdu_seconds:
            self._end(f"one PDU took more than {receive.pdu_seconds:g} s", now)
        elif not self.is_busy and reading_since is None and now - self.connection.last_heard > receive.idle_seconds:
            self.finish(f"silent for {receive.idle_seconds:g} s", now)

    def is_between_objects(self, now: float) -> bool:
        waiting = self.is_busy or self.dimse.message is not None or self.dimse.msg_queue.qsize()
        return not waiting and now - self.connection.last_heard > _QUIET

    def finish(self, reason: str, now: float) -> None:
        """A-ABORT, and one second for it to arrive before the line is cut."""
        if self.ending_at is None:
            log.info("association with %s aborted: %s", self.peer, reason)
            self.ending_at = now + 1.0
            if self.is_established:  # else it is on its way out already
                self.abort(block=False)

    def _end(self, reason: str, now: float) -> None:
        log.warning("association with %s cut: %s", self.peer, reason)
        self.ending_at = now
        self.connection.end()

    def _serve_request(self, msg: Any, context_id: int) -> None:
        context = self._accepted_cx.get(context_id)
        if isinstance(msg, C_STORE) and msg.MessageID is not None and context is not None:
            self._answer(msg, context_id, context)
        elif isinstance(msg, N_EVENT_REPORT) and msg.is_valid_request and context is not None:
            self._answer_report(msg, context_id, context)
        elif not msg.is_valid_request:  # the library would ignore it and let the peer wait
            log.warning("%s sent a request without its mandatory elements; aborted", self.peer)
            self.abort()
        else:
            super()._serve_request(msg, context_id)

    def _answer(self, request: C_STORE, context_id: int, context: PresentationContext) -> None:
        self.is_busy = True
        try:
            status, comment = self.server.desk.store(self, request, context)
        finally:
            self.is_busy = False
            self.connection.last_heard = time.monotonic()
        if not self.is_established:
            return  # the peer has left; it will send the object again and meet the stored one
        response = C_STORE()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
        response.Status = status
        if comment:
            response.ErrorComment = comment[:64]  # type: ignore[assignment]  # the library declares it None
        self.dimse.send_msg(response, context_id)

    def _answer_report(self, request: N_EVENT_REPORT, context_id: int, context: PresentationContext) -> None:
        self.is_busy = True
        try:
            status = self.server.desk.report(self, request, context)
        finally:
            self.is_busy = False
            self.connection.last_heard = time.monotonic()
        if not self.is_established:
            return  # the peer has left; it will repeat its report and meet the written one
        response = N_EVENT_REPORT()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
        response.EventTypeID = request.EventTypeID
        response.Status = status
        self.dimse.send_msg(response, context_id)

    def offer(self, contexts: list[PresentationContext]) -> None:
        """What may be negotiated, decided at the gate."""
        self.acceptor.supported_contexts = deepcopy(contexts)

    def _bind_defaults(self) -> None:
        """None: the server's handlers are bound later, and the library's log handlers only cost time here."""

    def _describe(self, server: Server, guest: Guest) -> None:
        acceptor = self.acceptor
        acceptor.maximum_length = server.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = server.address_info
        acceptor.implementation_class_uid = server.ae.implementation_class_uid
        acceptor.implementation_version_name = server.ae.implementation_version_name
        acceptor.supported_contexts = deepcopy(server.contexts)
        self.requestor.address_info = AddressInformation.from_tuple(guest.address)
        for event, handler in server.intervention_handlers.items():
            self.bind(event, handler)
        self.bind(evt.EVT_DIMSE_RECV, _clean_uids)


def _clean_uids(event: evt.Event) -> None:
    """Take a SOP Instance UID that is none out of the command set before the library reads it.

    Over 64 bytes it would abort the association, and the sender would never hear which object was wrong. Without one
    the request goes on and is answered with a status.
    """
    command = event.message.command_set
    for keyword in ("AffectedSOPInstanceUID", "AffectedSOPClassUID"):
        if keyword in command and not is_uid(command.get(keyword)):
            delattr(command, keyword)


def _plain(host: str) -> str:
    return host.removeprefix("::ffff:")
