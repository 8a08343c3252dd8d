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
from pynetdicom._globals import DEFAULT_MAX_LENGTH, MODE_REQUESTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import _RQ_TO_MESSAGE, _RSP_TO_MESSAGE
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_node.dimse.association_pdu import ASSOCIATE_AC, UNSAID_LENGTH, read_accept
from dicom_node.dimse.transport import OutgoingLine
from dicom_node.dimse.pynetdicom_adapter import Messages, Upper

log = logging.getLogger(__name__)

_ABORT = 0x07
_AHEAD = 32  # PDUs that wait to be written
_MOST_BYTES = 20 * 2**20  # of a message of the peer: a report on some 100,000 objects


class _Reader(Upper):
    """Reads an A-ASSOCIATE-AC by PS3.8 9.3.3."""

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        association = cast(Outbound, self.assoc)
        association.has_aborted = bytestream[0] == _ABORT
        association.has_answered = not association.has_aborted
        if bytestream[0] == ASSOCIATE_AC:
            bytestream = bytearray(read_accept(bytes(bytestream)))
        return super()._decode_pdu(bytestream)


class _Outgoing(Messages):
    assoc: Outbound

    @property
    def maximum_pdu_size(self) -> int:
        """Of the peer, in bytes."""
        return self.assoc.acceptor.maximum_length or UNSAID_LENGTH

    def hand_on(self, context_id: int, message: Any) -> None:
        """A report may come before the response that is waited for: it has a queue of its own."""
        if isinstance(message, N_EVENT_REPORT) and message.is_valid_request:
            self.assoc.take_report(context_id, message)
        else:
            super().hand_on(context_id, message)

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """As the library does, a few PDUs ahead of the line. Raises ConnectionError when that is gone."""
        is_request = primitive.MessageIDBeingRespondedTo is None
        message = (_RQ_TO_MESSAGE if is_request else _RSP_TO_MESSAGE)[type(primitive)]()
        message.primitive_to_message(primitive)
        message.context_id = context_id
        for pdu in message.encode_msg(context_id, self.maximum_pdu_size):
            while self.dul.to_provider_queue.qsize() >= _AHEAD and self._is_open():
                time.sleep(0.0005)
            if not self._is_open():
                raise ConnectionError("the association ended")
            self.dul.send_pdu(pdu)

    def _is_open(self) -> bool:
        return self.dul.is_alive() and self.assoc.is_established and not self.assoc.acse.is_aborted()


class Outbound(Association):
    """An association that we open. `name`: of the peer, for log lines."""

    def __init__(self, ae: ApplicationEntity, name: str, address: AddressInformation) -> None:
        super().__init__(ae, MODE_REQUESTOR)
        self.peer = f"destination {name}"
        self.max_object = _MOST_BYTES
        self.has_answered = self.has_aborted = False  # what came last: an A-ABORT, or another PDU
        self.dul = _Reader(self)
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout  # its timers
        self.dimse = _Outgoing(self)
        self._reports: queue.Queue[tuple[N_EVENT_REPORT, int]] = queue.Queue()
        self._reporter: threading.Thread | None = None
        self._message_id = 0
        local = AddressInformation.from_tuple(("0.0.0.0", 0) if address.is_ipv4 else ("::", 0))
        self.connection = OutgoingLine(self, address=local)
        self.connection.is_behind = lambda: self._reports.qsize() > 0
        self.set_socket(self.connection)
        self.acceptor.address_info, self.requestor.address_info = address, local

    def propose(
        self,
        called_ae: str,
        contexts: Sequence[PresentationContext],
        handlers: Sequence[evt.EventHandlerType] = (),
        tls_args: tuple[ssl.SSLContext, str | None] | None = None,
    ) -> None:
        """Ask for the association, and wait for the answer: `is_established` says what became of it. Raises ValueError."""
        self.connection.tls_args = cast(Any, tls_args)
        self.acceptor.ae_title, self.requestor.ae_title = called_ae, self.ae.ae_title
        self.requestor.maximum_length = DEFAULT_MAX_LENGTH
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
        self._reactor_checkpoint.clear()  # the library's own loop must not take the response
        try:
            while not self._is_paused:
                if not self.is_established:
                    raise ConnectionError("the association ended")
                time.sleep(0.0001)
            self.dimse.send_msg(request, cast(int, context.context_id))
            _, response = self.dimse.get_msg(block=True)
        finally:
            self._reactor_checkpoint.set()
        if response is None:
            self._handle_no_response()
            return None
        if not _answers(response, request):
            log.warning("%s answered a C-STORE with something else; aborted", self.peer)
            self.abort()
            return None
        return int(cast(int, response.Status))

    @property
    def is_silent(self) -> bool:
        """Whether the connection was still there when we gave up waiting."""
        return self._sent_abort

    def close(self) -> None:
        """Release it when it can be, and close the line whatever happens. Never raises."""
        try:
            if self.is_established:
                super().release()
        except Exception as problem:  # noqa: BLE001  the peer's last word may be anything
            log.warning("%s did not end its association properly (%s)", self.peer, type(problem).__name__)
        self.is_established = False
        self._kill = True
        self._reactor_checkpoint.set()
        self.dul.kill_dul()
        self.connection.end()
        if self._started_dul:
            self.dul.join(5.0)
        line = self.connection.socket
        if line is not None:
            with suppress(OSError):
                line.close()

    def release(self) -> None:
        """As `close`."""
        self.close()

    def send_c_echo(self, msg_id: int = 1) -> Dataset:
        """As the library's: empty when there was no answer, whatever came instead of one. Never raises."""
        try:
            return super().send_c_echo(msg_id)
        except Exception as problem:  # noqa: BLE001  the peer's answer may be anything
            log.warning("%s did not answer a C-ECHO properly (%s)", self.peer, type(problem).__name__)
            self.abort()
            return Dataset()

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as problem:  # noqa: BLE001  the edge of the thread: nobody above it could be told
            log.warning("the association with %s ended by an error (%s)", self.peer, type(problem).__name__)
            self.is_aborted = True
            self.connection.end()
        finally:
            self.is_established = False
            self._is_paused = True  # nobody waits for this loop any more

    def take_report(self, context_id: int, message: N_EVENT_REPORT) -> None:
        """One after the other, in one thread: the reader must go on, and while reports wait it reads no more."""
        self._reports.put((message, context_id))
        if self._reporter is None:
            self._reporter = threading.Thread(target=self._serve_reports, name="reports", daemon=True)
            self._reporter.start()

    def renumbered(self, pdu: bytearray) -> bytearray:
        """The numbers of the contexts are ours."""
        return pdu

    def answered(self, pdu: bytes) -> bytes:
        """The numbers of the contexts are ours."""
        return pdu

    def _serve_reports(self) -> None:
        while self.is_established or not self._reports.empty():
            with suppress(queue.Empty):
                message, context_id = self._reports.get(timeout=0.2)
                try:
                    self._serve_request(message, context_id)
                except Exception as problem:  # noqa: BLE001  the edge of the thread
                    log.warning("a report of %s cannot be answered (%s)", self.peer, type(problem).__name__)

    def _bind_defaults(self) -> None:
        """The library's handlers of notifications only log; those that decide are needed."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))


def _answers(response: Any, request: C_STORE) -> bool:
    """Whether it is the C-STORE-RSP to this C-STORE-RQ (PS3.7 9.3.1.2)."""
    if not isinstance(response, C_STORE) or not response.is_valid_response:
        return False
    instance = response.AffectedSOPInstanceUID
    is_ours = response.MessageIDBeingRespondedTo == request.MessageID
    return is_ours and instance in (None, "", request.AffectedSOPInstanceUID)
