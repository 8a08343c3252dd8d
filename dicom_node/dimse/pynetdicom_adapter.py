"""What acceptor and requestor share above the line: PDUs in, messages in, and the edge at which neither can break us.

What the library leaves open and this file closes: an event that its state machine does not know ends its thread with a
traceback and leaves the line open; a rejection or an abort with a reason that has no name raises; each N-EVENT-REPORT gets a
thread of its own.
"""

from __future__ import annotations

import contextlib
import logging
from io import BytesIO
from typing import Any, Protocol, cast

from pynetdicom import evt
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA

from dicom_node.dimse.association_pdu import P_DATA_TF
from dicom_node.dimse.pdata import Fragments
from dicom_node.dimse.transport import Line

log = logging.getLogger(__name__)

_MAX_COMMAND_BYTES = 64 * 1024
_CANCELS = 10  # that are kept
_REJECTION, _ABORT = 0x03, 0x07
_REASONS = {1: (1, 2, 3, 7), 2: (1, 2), 3: (1, 2)}  # source of a rejection -> reasons with a name (PS3.8 table 9-21)
_ABORT_REASONS = (0, 1, 2, 4, 5, 6)  # of the provider (PS3.8 table 9-26)


class Side(Protocol):
    """What an association of ours has beside the library's."""

    connection: Line
    max_object: int  # bytes
    is_aborted: bool
    is_released: bool
    is_established: bool

    @property
    def peer(self) -> str: ...

    def renumbered(self, pdu: bytearray) -> bytearray: ...

    def answered(self, pdu: bytes) -> bytes: ...


class Upper(DULServiceProvider):
    """The library's reader."""

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as problem:  # noqa: BLE001  the edge of the thread: hostile PDUs raise anything
            side = cast(Side, self.assoc)
            log.warning("%s broke the protocol (%s); aborted", side.peer, type(problem).__name__)
            side.is_aborted = not side.is_released
            side.connection.end()
            self.to_user_queue.put(A_P_ABORT())  # whoever waits for an answer need not wait for its time-out
            self.assoc.dimse.msg_queue.put((None, None))

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        if bytestream[0] == P_DATA_TF:
            bytestream = cast(Side, self.assoc).renumbered(bytestream)
            with contextlib.suppress(ValueError):
                return Fragments(bytestream), "Evt10"
        return super()._decode_pdu(_named(bytestream))

    def _send(self, pdu: Any) -> None:
        if self.socket is not None:
            self.socket.send(cast(Side, self.assoc).answered(pdu.encode()))
            evt.trigger(self.assoc, evt.EVT_PDU_SENT, {"pdu": pdu})


class Messages(DIMSEServiceProvider):
    """DIMSE with a limit per message; every message waits in one queue, reports too."""

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Called in the reader's thread for every P-DATA-TF."""
        side = cast(Side, self.assoc)
        if self._is_too_large(primitive, side.max_object):
            log.warning("%s sent more than one message may hold (%d bytes); aborted", side.peer, side.max_object)
            self._give_up()
            return
        try:
            self._receive(primitive)
        except Exception as problem:  # noqa: BLE001  the edge of DIMSE: a command set of hostile bytes raises anything
            log.warning("%s sent a message that cannot be read (%s); aborted", side.peer, type(problem).__name__)
            self._give_up()

    def hand_on(self, context_id: int, message: Any) -> None:
        """A whole message of the peer."""
        self.msg_queue.put((context_id, message))

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
            self.hand_on(context_id, message)
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
