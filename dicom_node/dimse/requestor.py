"""One association that we open: pynetdicom's, with an edge that no answer of a peer can break.

What the library leaves open and this file closes: an answer that it does not understand ends its threads with a traceback
and leaves the socket open; a whole object waits in memory before its first byte is sent; the response to another message
counts as the response to ours; a peer's reports run in threads without number.
"""

from __future__ import annotations

import logging
import queue
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from io import BytesIO
from typing import Any, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.pdu_primitives import A_ABORT, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_node.dimse.association_pdu import ASSOCIATE_AC, read_accept
from dicom_node.dimse.pynetdicom_adapter import NodeAssociation, UpperLayer
from dicom_node.dimse.transport import RequestorTransport

log = logging.getLogger(__name__)

_ABORT = 0x07
_AHEAD = 32  # PDUs that wait to be written
_MOST_BYTES = 20 * 2**20  # of a message of the peer: a report on some 100,000 objects


class _RequestorUpperLayer(UpperLayer):
    """Sends a few PDUs ahead of the connection: a whole object must not wait in memory."""

    assoc: RequestorAssociation

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive. Raises ConnectionError when it is part of a message and the association ended."""
        if isinstance(primitive, P_DATA):
            while self.to_provider_queue.qsize() >= _AHEAD and self._is_open():
                time.sleep(0.0005)
            if not self._is_open():
                raise ConnectionError("the association ended")
        super().send_pdu(primitive)

    def _is_open(self) -> bool:
        return self.is_alive() and self.assoc.is_established and not self.assoc.acse.is_aborted()


class RequestorAssociation(NodeAssociation):
    """An association that we open. `name`: of the peer, for log lines."""

    transport: RequestorTransport

    def __init__(self, ae: ApplicationEntity, name: str, address: AddressInformation) -> None:
        super().__init__(ae, "requestor", f"destination {name}", _MOST_BYTES, _RequestorUpperLayer)
        self.has_answered = self.has_aborted = False  # what came last: an A-ABORT, or another PDU
        self.is_silent = False  # the connection was still there when we gave up waiting
        self._reports: queue.Queue[tuple[N_EVENT_REPORT, int]] = queue.Queue()
        self._reporter: threading.Thread | None = None
        self._message_id = 0
        local = AddressInformation.from_tuple(("0.0.0.0", 0) if address.is_ipv4 else ("::", 0))
        self.use(RequestorTransport(self, address=local))
        self.transport.is_behind = lambda: self._reports.qsize() > 0
        self.acceptor.address_info, self.requestor.address_info = address, local
        self.bind(evt.EVT_ACSE_SENT, self._on_acse_sent)

    def propose(
        self,
        called_ae: str,
        contexts: Sequence[PresentationContext],
        handlers: Sequence[evt.EventHandlerType] = (),
        tls_args: tuple[ssl.SSLContext, str | None] | None = None,
    ) -> None:
        """Ask for the association, and wait for the answer: `is_established` says what became of it. Raises ValueError."""
        self.transport.tls_args = cast(Any, tls_args)
        self.acceptor.ae_title, self.requestor.ae_title = called_ae, self.ae.ae_title
        self.requestor.maximum_length = self.ae.maximum_pdu_size
        self.requestor.implementation_class_uid = self.ae.implementation_class_uid
        self.requestor.implementation_version_name = self.ae.implementation_version_name
        proposed = deepcopy(list(contexts))
        for number, context in enumerate(proposed):
            context.context_id = 2 * number + 1
        self.requestor.requested_contexts = proposed
        for handler in handlers:
            self.bind(*handler)
        self.request()
        if self.is_established:
            self.start()
        else:
            self.close()

    def store(self, context: PresentationContext, sop_class: str, sop_instance: str, dataset: bytes) -> int | None:
        """C-STORE; the status, None when there was no answer to it. Raises ConnectionError when the association ended."""
        self._message_id = self._message_id % 0xFFFF + 1
        request = C_STORE()
        request.MessageID, request.Priority = self._message_id, 0x0002
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(sop_class), UID(sop_instance)
        request.DataSet = BytesIO(dataset)
        with self.waiting():
            self.dimse.send_msg(request, cast(int, context.context_id))
            _, response = self.dimse.get_msg(block=True)
        if response is None:
            if self.is_established and not self.acse.is_aborted():
                self.abort()  # its time is over
            return None
        if not _answers(response, request):
            log.warning("%s answered a C-STORE with something else; aborted", self.peer)
            self.abort()
            return None
        return int(cast(int, response.Status))

    def close(self) -> None:
        """Release it when it can be, and close the connection whatever happens. Never raises."""
        try:
            if self.is_established:
                self.release()
        except Exception as problem:  # noqa: BLE001  the peer's last PDU may be anything
            log.warning("%s did not end its association properly (%s)", self.peer, type(problem).__name__)
        self.is_established = False
        self.dul.kill_dul()
        self.transport.end()
        if self.dul.is_alive():
            self.dul.join(5.0)
        if not self.dul.is_alive():
            self.kill()  # the association's thread; it would wait for the other one
        self.transport.end_and_close()

    def send_c_echo(self, msg_id: int = 1) -> Dataset:
        """As the library's: empty when there was no answer, whatever came instead of one. Never raises."""
        try:
            return super().send_c_echo(msg_id)
        except Exception as problem:  # noqa: BLE001  the peer's answer may be anything
            log.warning("%s did not answer a C-ECHO properly (%s)", self.peer, type(problem).__name__)
            self.abort()
            return Dataset()

    def run_reactor(self) -> None:
        """The association's thread."""
        try:
            super().run_reactor()
        except Exception as problem:  # noqa: BLE001  the edge of the thread: nobody above it could be told
            log.warning("the association with %s ended by an error (%s)", self.peer, type(problem).__name__)
            self.is_aborted = True
            self.transport.end()
        finally:
            self.dul.kill_dul()
            self.kill()  # nobody waits for this loop any more

    def incoming(self, pdu: bytearray) -> bytearray:
        """An A-ASSOCIATE-AC is read by PS3.8 9.3.3. Raises ValueError when it cannot be."""
        self.has_aborted = pdu[0] == _ABORT
        self.has_answered = not self.has_aborted
        return bytearray(read_accept(bytes(pdu))) if pdu[0] == ASSOCIATE_AC else pdu

    def hand_on(self, context_id: int, message: Any) -> None:
        """A report may come before the response that is waited for: reports have a queue and one thread of their own. The upper
        layer must go on, and while reports wait it reads no more."""
        if not (isinstance(message, N_EVENT_REPORT) and message.is_valid_request):
            super().hand_on(context_id, message)
            return
        self._reports.put((message, context_id))
        if self._reporter is None:
            self._reporter = threading.Thread(target=self._serve_reports, name="reports", daemon=True)
            self._reporter.start()

    def _on_acse_sent(self, event: evt.Event) -> None:
        self.is_silent = self.is_silent or isinstance(getattr(event, "primitive", None), A_ABORT)

    def _serve_reports(self) -> None:
        while self.is_established or not self._reports.empty():
            with suppress(queue.Empty):
                message, context_id = self._reports.get(timeout=0.2)
                try:
                    self.serve(message, context_id)
                except Exception as problem:  # noqa: BLE001  the edge of the thread
                    log.warning("a report of %s cannot be answered (%s)", self.peer, type(problem).__name__)


def _answers(response: Any, request: C_STORE) -> bool:
    """Whether it is the C-STORE-RSP to this C-STORE-RQ (PS3.7 9.3.1.2)."""
    if not isinstance(response, C_STORE) or not response.is_valid_response:
        return False
    instance = response.AffectedSOPInstanceUID
    is_ours = response.MessageIDBeingRespondedTo == request.MessageID
    return is_ours and instance in (None, "", request.AffectedSOPInstanceUID)
