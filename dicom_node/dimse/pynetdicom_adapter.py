"""pynetdicom below its documented interface: what acceptor and requestor share, and every internal name that is used.

Documented hooks do what they can: EVT_REQUESTED with `acse.send_reject` is admission; EVT_ESTABLISHED, EVT_DIMSE_RECV,
EVT_C_STORE, EVT_N_EVENT_REPORT, EVT_ACSE_SENT and EVT_PDU_SENT are bound by those who decide; the transports (transport.py)
override what `AssociationSocket` documents. The rest has no hook. tests/dimse/test_pynetdicom_adapter.py walks this table,
names what moved in another version, and fails when an internal name is used that is not in it.

    name in pynetdicom                                             why it is used
    -------------------------------------------------------------  -------------------------------------------------------
    _config.LOG_HANDLER_LEVEL                                      its handlers for logging cost time at every message
    association.Association._serve_request(self, msg, context_id)  replaced: a request without a mandatory element, or of
                                                                   another class than its context's, never reaches EVT_C_STORE
    association.Association._reactor_checkpoint                    cleared while we wait for a response, or the library's own
    association.Association._is_paused                             loop takes it; its send_c_store takes no encoded dataset
    dul.DULServiceProvider.run_reactor(self)                       extended: a PDU that raises must not end the thread with
                                                                   the connection open and others waiting
    dul.DULServiceProvider._decode_pdu(self, bytestream)           extended: events only look at a PDU, here it is mended
                                                                   first; P-DATA-TF is read without four copies
    dul.DULServiceProvider.to_user_queue                           an abort is put there when the thread ends
    dul.DULServiceProvider.to_provider_queue                       looked at: a whole object must not wait there
    dul.DULServiceProvider.event_queue                             looked at: no PDU is read before the last one is dealt with
    dul.DULServiceProvider.state_machine                           looked at: nothing is read while admission decides (Sta3)
    dimse.DIMSEServiceProvider.receive_primitive(self, primitive)  replaced: no limit per message, errors end the thread, a
                                                                   thread for each N-EVENT-REPORT
    dimse.DIMSEServiceProvider.message                             as there: the message that is being received
    dimse.DIMSEServiceProvider.msg_queue                           as there: whole messages; (None, None) wakes who waits
    dimse.DIMSEServiceProvider.cancel_req                          as there: C-CANCEL requests
    dimse_messages.DIMSEMessage.decode_msg(self, primitive, assoc=None)  as there
    dimse_messages.DIMSEMessage.message_to_primitive(self)         as there
    dimse_messages.DIMSEMessage.encoded_command_set                as there: its size is limited
    dimse_messages.DIMSEMessage.data_set                           as there: its size is limited
    transport.AssociationSocket._is_connected                      set: its connect only logs why it failed, and leaves the
    transport.AssociationSocket._ready                             connection without a deadline
    transport.AssociationSocket.provider_queue                     as there
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any, cast

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA
from pynetdicom.transport import T_CONNECT, AssociationSocket

from dicom_node.dimse.association_pdu import P_DATA_TF, UNSAID_LENGTH
from dicom_node.dimse.pdata import Fragments

log = logging.getLogger(__name__)

_config.LOG_HANDLER_LEVEL = "none"

_HEADER = 6  # bytes of a PDU's header, what is read next (PS3.8 9.3.1)
_MAX_COMMAND_BYTES = 64 * 1024
_CANCELS = 10  # that are kept
_REJECTION, _ABORT = 0x03, 0x07
_REASONS = {1: (1, 2, 3, 7), 2: (1, 2), 3: (1, 2)}  # source of a rejection -> reasons with a name (PS3.8 table 9-21)
_ABORT_REASONS = (0, 1, 2, 4, 5, 6)  # of the provider (PS3.8 table 9-26)


class Transport(AssociationSocket):
    """The transport connection (PS3.8 9.1.4), plain or TLS; it is ready when data is there.

    A TLS record need not carry data (a session ticket, a key update, half a record), yet the library, seeing bytes, starts
    a read that nothing can end, and while it waits nothing is sent either: no response, no abort.
    """

    assoc: NodeAssociation

    def __init__(self, association: NodeAssociation, **how: Any) -> None:
        super().__init__(association, **how)
        self._ahead = memoryview(b"")  # data that was read before anybody asked

    @property
    def ready(self) -> bool:
        """Whether a read finds data, or the end of the connection."""
        return bool(self._ahead) or (bool(super().ready) and self._has_data())

    def recv(self, nr_bytes: int) -> bytearray:
        """The next `nr_bytes`, fewer when the connection ended. Raises OSError."""
        data = self._take(nr_bytes)
        return data + super().recv(nr_bytes - len(data))

    def end(self) -> None:
        """Shut the connection down under whoever reads or writes on it. Never raises."""
        connection = self.socket
        if connection is not None:
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not SSLSocket's: it pulls TLS from under a reader
            except OSError:
                pass

    def end_and_close(self) -> None:
        """The same, and give the descriptor back. Never raises."""
        self.end()
        connection = self.socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def report(self, primitive: T_CONNECT, *, connected: bool) -> None:
        """Tell the state machine what became of a TRANSPORT CONNECT (PS3.8 table 9-10: Evt2, Evt17), and who waits for it."""
        self._is_connected = connected
        primitive.result = "Evt2" if connected else "Evt17"
        self.provider_queue.put(primitive)
        self._ready.set()

    def _take(self, size: int) -> bytearray:
        """What was read ahead, at most `size` bytes of it."""
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        return bytearray(taken)

    def _has_data(self) -> bool:
        connection = self.socket
        if not isinstance(connection, ssl.SSLSocket) or connection.pending():
            return True
        patience = connection.gettimeout()
        connection.settimeout(0)
        try:
            self._ahead = memoryview(connection.recv(_HEADER))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except (OSError, ValueError):
            return True  # it is broken: the next read says so
        finally:
            connection.settimeout(patience)
        return True


class UpperLayer(DULServiceProvider):
    """Reads PDUs in a thread of its own; bytes that are none end the association, not the process."""

    assoc: NodeAssociation

    def run_reactor(self) -> None:
        """The thread."""
        try:
            super().run_reactor()
        except Exception as problem:  # noqa: BLE001  the edge of the thread: hostile PDUs raise anything
            association = self.assoc
            log.warning("%s broke the protocol (%s); aborted", association.peer, type(problem).__name__)
            association.is_aborted = not association.is_released
            association.transport.end()
            self.to_user_queue.put(A_P_ABORT())  # whoever waits for a response need not wait for its time-out
            association.dimse.msg_queue.put((None, None))

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        bytestream = self.assoc.incoming(bytestream)
        if bytestream[0] == P_DATA_TF:
            with contextlib.suppress(ValueError):
                return Fragments(bytestream), "Evt10"
        return super()._decode_pdu(_named(bytestream))


class DimseProvider(DIMSEServiceProvider):
    """DIMSE with a limit per message; every message waits in one queue, reports too."""

    assoc: NodeAssociation

    @property
    def maximum_pdu_size(self) -> int:
        """Of the peer, in bytes."""
        return super().maximum_pdu_size or UNSAID_LENGTH

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Called in the upper layer's thread for every P-DATA-TF. Never raises."""
        association = self.assoc
        if self._is_too_large(primitive, association.max_object):
            most = association.max_object
            log.warning("%s sent more than one message may hold (%d bytes); aborted", association.peer, most)
            self._give_up()
            return
        try:
            self._receive(primitive)
        except Exception as problem:  # noqa: BLE001  the edge of DIMSE: a command set of hostile bytes raises anything
            log.warning("%s sent a message that cannot be read (%s); aborted", association.peer, type(problem).__name__)
            self._give_up()

    def _receive(self, primitive: P_DATA) -> None:
        """As the library does, but for the thread that it starts for an N-EVENT-REPORT."""
        self.message = self.message or DIMSEMessage()
        if not self.message.decode_msg(primitive, self.assoc):
            return
        evt.trigger(self.assoc, evt.EVT_DIMSE_RECV, {"message": self.message})
        context_id = cast(int, self.message.context_id)
        message = self.message.message_to_primitive()
        if isinstance(message, C_CANCEL) and len(self.cancel_req) < _CANCELS:
            self.cancel_req[cast(int, message.MessageIDBeingRespondedTo)] = message
        else:
            self.assoc.hand_on(context_id, message)
        self.message.encoded_command_set, self.message.data_set = BytesIO(), BytesIO()
        self.message = None

    def _give_up(self) -> None:
        self.message = None
        self.assoc.abort(block=False)

    def _is_too_large(self, primitive: P_DATA, most: int) -> bool:
        command = data = 0
        if self.message is not None:
            command = self.message.encoded_command_set.tell()
            data = self.message.data_set.tell() if self.message.data_set is not None else 0
        for _, fragment in primitive.presentation_data_value_list:
            if not fragment:
                return True  # not even a control header; the library would trip over it
            if fragment[0] & 1:
                command += len(fragment) - 1
            else:
                data += len(fragment) - 1
        return command > _MAX_COMMAND_BYTES or data > most


class NodeAssociation(Association):
    """What our associations of both directions share. `mode`: "acceptor" or "requestor"; `peer`: for log lines; `max_object`:
    bytes of one message; `upper_layer`: its class.
    """

    transport: Transport

    def __init__(
        self, ae: ApplicationEntity, mode: str, peer: str, max_object: int, upper_layer: type[UpperLayer] = UpperLayer
    ) -> None:
        super().__init__(ae, mode)
        self.peer, self.max_object = peer, max_object
        self.dul = upper_layer(self)
        self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout  # its timers
        self.dimse = DimseProvider(self)

    def use(self, transport: Transport) -> None:
        """Take the connection."""
        self.transport = transport
        self.set_socket(transport)

    def incoming(self, pdu: bytearray) -> bytearray:
        """A PDU of the peer as the library is to read it. Raises ValueError when it has no such form."""
        return pdu

    def hand_on(self, context_id: int, message: Any) -> None:
        """A whole message of the peer."""
        self.dimse.msg_queue.put((context_id, message))

    def serve(self, message: Any, context_id: int) -> None:
        """A request of the peer, in the association's thread: by the library, for the handlers that are bound."""
        super()._serve_request(message, context_id)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        self.serve(msg, context_id)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Messages are ours to take, not the library's loop's. Raises ConnectionError when the association ended."""
        self._reactor_checkpoint.clear()
        try:
            while not self._is_paused:
                if not self.is_established:
                    raise ConnectionError("the association ended")
                time.sleep(0.0001)
            yield
        finally:
            self._reactor_checkpoint.set()


def _named(pdu: bytearray) -> bytearray:
    """A rejection or an abort with reasons that have a name: the library raises at others."""
    if len(pdu) != 10 or pdu[0] not in (_REJECTION, _ABORT):
        return pdu
    if pdu[0] == _ABORT:
        pdu[8] = pdu[8] if pdu[8] in (0, 2) else 2
        pdu[9] = pdu[9] if pdu[9] in _ABORT_REASONS else 0
        return pdu
    pdu[7] = 1 if pdu[7] == 1 else 2  # permanent; what is not said to be so is transient
    pdu[8] = pdu[8] if pdu[8] in _REASONS else 1
    pdu[9] = pdu[9] if pdu[9] in _REASONS[pdu[8]] else 1
    return pdu
