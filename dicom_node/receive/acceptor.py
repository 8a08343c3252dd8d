"""One association from a peer: pynetdicom's, on a connection that cannot be made to wait for ever.

What the library leaves open and this file closes (all measured): a PDU may declare 4 GB; objects have no size limit; a
peer may send faster than it is answered; reads are 4 KiB; a request without its mandatory elements is never answered.
Deadlines are wall clock and enforced by closing the socket: the library's own start again with every byte.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple, cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext, PresentationContextTuple
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.service_class_n import StorageCommitmentServiceClass
from pynetdicom.transport import AddressInformation

from dicom_node.dimse.association_pdu import Request, is_uid
from dicom_node.dimse.pynetdicom_adapter import NodeAssociation
from dicom_node.dimse.status import Rejection
from dicom_node.dimse.transport import AcceptorTransport
from dicom_node.receive.association_limit import AssociationSlot
from dicom_node.receive.pending import PendingConnection
from dicom_node.runtime.config_sections import Receive

log = logging.getLogger(__name__)

_QUIET = 1.0  # seconds without a byte after which a stopping server ends an association between two objects


class Handlers(NamedTuple):
    """What the SCP decides. All are called from the association's own thread."""

    admit: Callable[[AcceptorAssociation], Rejection | None]
    nothing_accepted: Callable[[AcceptorAssociation], None]  # no presentation context could be accepted
    store: Callable[[AcceptorAssociation, C_STORE, PresentationContextTuple], tuple[int, str]]  # status, Error Comment
    report: Callable[[AcceptorAssociation, N_EVENT_REPORT, PresentationContextTuple], int]  # status
    closed: Callable[[AcceptorAssociation], None]


class AcceptorAssociation(NodeAssociation):
    """One association from a peer. `ended` is called when it is over, from its own thread."""

    transport: AcceptorTransport

    def __init__(
        self,
        ae: ApplicationEntity,
        connection: PendingConnection,
        request: Request,
        receive: Receive,
        handlers: Handlers,
        ended: Callable[[AcceptorAssociation], None],
    ) -> None:
        host = connection.host.removeprefix("::ffff:")
        peer = f"'{request.calling_ae}' at {host}"  # what cannot be printed in an AE title is escaped already
        super().__init__(ae, "acceptor", peer, receive.max_object_mb * 2**20)
        self.host = host
        self.asked = request
        self.calling_ae, self.called_ae = request.calling_ae, request.called_ae
        self.name = f"AcceptorThread@{connection.host}:{connection.address[1]}"  # as the library names them
        self._receive, self._decide, self._ended = receive, handlers, ended
        self.use(AcceptorTransport(self, connection.socket, request.pdu, ae.maximum_pdu_size, request.outgoing))
        self.since = connection.since  # monotonic seconds of the TCP accept
        self.admitted = False  # counts as an association from here on
        self.slot: AssociationSlot | None = None
        self.is_busy = False  # a response is being worked out: not the peer's silence
        self.ending_at: float | None = None  # monotonic seconds
        self.received = 0  # objects that were answered with success
        self.may_store = True
        self.speaks_for: frozenset[str] = frozenset()  # peers whose commitment it may report
        self.nothing_accepted = ""  # "no class accepted", "no syntax accepted"
        self.journal_id: int | None = None
        self._describe(connection)
        self.bind(evt.EVT_REQUESTED, self._on_requested)
        self.bind(evt.EVT_ESTABLISHED, self._on_established)
        self.bind(evt.EVT_DIMSE_RECV, _clean_uids)
        self.bind(evt.EVT_C_STORE, self._on_c_store)
        self.bind(evt.EVT_N_EVENT_REPORT, self._on_n_event_report)

    @property
    def outcome(self) -> str:
        """released, aborted, rejected, lost (the connection ended without A-RELEASE or A-ABORT), or `nothing_accepted`."""
        if self.admitted and self.nothing_accepted:
            return self.nothing_accepted
        if self.is_released:
            return "released"
        if not self.admitted:
            return "rejected"
        return "aborted" if self.is_aborted else "lost"

    def offer(self, contexts: list[PresentationContext]) -> None:
        """What may be negotiated (PS3.8 7.1.1.13). Nothing is, unless admission offers it."""
        self.acceptor.supported_contexts = deepcopy(contexts)

    def incoming(self, pdu: bytearray) -> bytearray:
        """The contexts have the library's numbers."""
        return self.asked.incoming(pdu)

    def run_reactor(self) -> None:
        """The association's thread."""
        try:
            super().run_reactor()
        except Exception:  # the edge of the thread: nobody above it could be told
            log.exception("association with %s ended by an error of ours", self.peer)
        finally:
            self.dul.kill_dul()
            self.transport.end_and_close()
            self.dimse.message = None  # half an object need not wait for the garbage collector
            try:
                self._decide.closed(self)
            finally:
                self._ended(self)

    def keep_time(self, now: float) -> None:
        """End the association when one of its deadlines has passed. `now`: monotonic seconds."""
        receive, reading_since = self._receive, self.transport.pdu_since
        if self.ending_at is not None:
            if now > self.ending_at:
                self.transport.end()
        elif not self.admitted and now - self.since > receive.establish_seconds:
            self._cut(f"no association within {receive.establish_seconds:g} s", now)
        elif reading_since is not None and now - reading_since > receive.pdu_seconds:
            self._cut(f"one PDU took more than {receive.pdu_seconds:g} s", now)
        elif not self.is_busy and reading_since is None and now - self.transport.last_heard > receive.idle_seconds:
            self.finish(f"silent for {receive.idle_seconds:g} s", now)

    def is_between_objects(self, now: float) -> bool:
        """Whether nothing would be lost if it ended. `now`: monotonic seconds."""
        waiting = self.is_busy or self.dimse.message is not None or self.dimse.msg_queue.qsize()
        return not waiting and now - self.transport.last_heard > _QUIET

    def finish(self, reason: str, now: float) -> None:
        """A-ABORT, and one second for it to arrive before the connection is cut. `now`: monotonic seconds."""
        if self.ending_at is None:
            log.info("association with %s aborted: %s", self.peer, reason)
            self.ending_at = now + 1.0
            if self.is_established:  # else it is on its way out already
                self.abort(block=False)

    def serve(self, message: Any, context_id: int) -> None:
        """One request. The library would go by its SOP class, and ignore it when an element is missing."""
        context = next((one for one in self.accepted_contexts if one.context_id == context_id), None)
        if isinstance(message, C_STORE) and message.MessageID is not None and context is not None:
            StorageServiceClass(self).SCP(message, context)
        elif isinstance(message, N_EVENT_REPORT) and message.is_valid_request and context is not None:
            StorageCommitmentServiceClass(self).SCP(message, context)
        elif not message.is_valid_request:
            log.warning("%s sent a request without its mandatory elements; aborted", self.peer)
            self.abort()
        else:
            super().serve(message, context_id)

    def _cut(self, reason: str, now: float) -> None:
        log.warning("association with %s cut: %s", self.peer, reason)
        self.ending_at = now
        self.transport.end()

    def _on_requested(self, _: evt.Event) -> None:
        """Admission. Until it says yes the association counts as aborted: an error in it never lets anybody in."""
        self.is_aborted = True
        if not isinstance(self.requestor.primitive, A_ASSOCIATE):
            self.kill()  # the peer left before it was looked at
            return
        rejection = self._decide.admit(self)
        if rejection is None:
            self.is_aborted = False
        else:
            self.acse.send_reject(*rejection.value)
            self.kill()

    def _on_established(self, _: evt.Event) -> None:
        if not self.accepted_contexts:
            self._decide.nothing_accepted(self)

    def _on_c_store(self, event: evt.Event) -> int | Dataset:
        """The status of a C-STORE-RSP, with Error Comment where there is one (LO, at most 64 characters; PS3.7 9.3.1.2)."""
        with self._busy():
            status, comment = self._decide.store(self, cast(C_STORE, event.request), event.context)
        if not comment:
            return status
        response = Dataset()
        response.Status, response.ErrorComment = status, comment[:64]
        return response

    def _on_n_event_report(self, event: evt.Event) -> tuple[int, None]:
        with self._busy():
            return self._decide.report(self, cast(N_EVENT_REPORT, event.request), event.context), None

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False
            self.transport.last_heard = time.monotonic()

    def _describe(self, connection: PendingConnection) -> None:
        acceptor = self.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.ae.ae_title
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        self.requestor.address_info = AddressInformation.from_tuple(connection.address)


def _clean_uids(event: evt.Event) -> None:
    """Take a SOP Instance UID that is none out of the command set before the library reads it.

    Over 64 bytes it would abort the association, and the sender would never hear which object was wrong. Without one
    the request goes on and is answered with a status.
    """
    command = event.message.command_set
    for keyword in ("AffectedSOPInstanceUID", "AffectedSOPClassUID"):
        if keyword in command and not is_uid(command.get(keyword)):
            delattr(command, keyword)
