"""The transport connections of an acceptor and of a requestor: the longest PDU, deadlines by the wall clock, backpressure."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable
from typing import cast

from pynetdicom.transport import T_CONNECT, AddressInformation

from dicom_node.dimse.pynetdicom_adapter import NodeAssociation, Transport

log = logging.getLogger(__name__)

_KNOWN_PDUS = range(0x01, 0x08)
_LONGEST_ANSWER = 2**20  # bytes of a PDU that is an answer to us; we ask for 16 KiB
_WAITING_REQUESTS = 1  # read ahead while another is answered; a peer that sends more is left in TCP's hands


class AcceptorTransport(Transport):
    """A connection from a peer, with a limit per PDU, a clock, and large reads.

    `received`: the A-ASSOCIATE-RQ, read before the association existed; `max_pdu`: bytes; `outgoing`: what becomes of a PDU
    of ours on its way.
    """

    def __init__(
        self,
        association: NodeAssociation,
        connection: socket.socket,
        received: bytes,
        max_pdu: int,
        outgoing: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(association, client_socket=connection)
        self._ahead = memoryview(received)
        self._memory = bytearray()
        self._max_pdu = max_pdu
        self._outgoing = outgoing
        self._in_header = True
        self.last_heard = time.monotonic()  # when a part of a PDU was read
        self.pdu_since: float | None = None  # monotonic seconds: when the PDU that is being read began

    @property
    def ready(self) -> bool:
        """Whether to read now.

        Not while requests wait: backpressure, or memory would be the peer's to fill. And not while admission decides:
        a peer that talks on would get an A-ABORT for it instead of the reason of its rejection.
        """
        is_deciding = self.assoc.dul.state_machine.current_state == "Sta3"  # awaiting the local A-ASSOCIATE response
        is_behind = not self.event_queue.empty()  # the request was read, the state machine has not seen it
        if is_deciding or is_behind or self.assoc.dimse.msg_queue.qsize() >= _WAITING_REQUESTS:
            return False
        return super().ready

    def send(self, bytestream: bytes) -> None:
        """Never raises: the state machine is told that the connection ended."""
        super().send(self._outgoing(bytestream))

    def recv(self, nr_bytes: int) -> memoryview:  # type: ignore[override]  # the library appends it to its own bytes
        """The next `nr_bytes`, fewer when the connection ended or its limit was passed. Never raises.

        The library reads a PDU in two calls, six bytes of header and the rest.
        """
        self.pdu_since = self.pdu_since or time.monotonic()
        data = self._read(nr_bytes)
        if self._in_header and len(data) == nr_bytes:
            kind, _, length = struct.unpack(">BBL", data)
            # Some senders count the header in: six bytes more do no harm.
            if length > self._max_pdu + 6:
                address = self.assoc.requestor.address
                log.warning("%s declared a PDU of %d bytes, %d are allowed", address, length, self._max_pdu)
                self.end()
                return memoryview(b"")
            self._in_header = kind not in _KNOWN_PDUS  # the library reads no body of a PDU that it does not know
        else:
            self._in_header = True
        if self._in_header:
            self.pdu_since = None
        self.last_heard = time.monotonic()
        return data

    def _read(self, size: int) -> memoryview:
        """Into the same memory every time: it is copied from there before the next read."""
        ahead = self._take(size)
        if len(self._memory) < size:
            self._memory = bytearray(size)
        view, done = memoryview(self._memory)[:size], len(ahead)
        view[:done] = ahead
        try:
            while done < size:
                count = cast(socket.socket, self.socket).recv_into(view[done:])
                if not count:
                    break
                done += count
        except (OSError, ValueError, AttributeError):
            pass  # closed, by the peer or by a deadline
        return view[:done]


class RequestorTransport(Transport):
    """A connection that we open. The library lets it wait without end once it is connected; here network_timeout holds on, for
    a whole PDU. `problem`: why there is no connection, which the library only logs.

    What is short goes out at once: a C-STORE's command, held back until the one before was acknowledged, costs 40 ms.
    """

    problem: OSError | None = None
    is_behind: Callable[[], bool] = staticmethod(lambda: False)  # what was read is not worked up: read no more

    @property
    def ready(self) -> bool:
        """Whether to read now."""
        return not self.is_behind() and super().ready

    def connect(self, primitive: T_CONNECT) -> None:
        """As the library does. Never raises; the primitive has the result."""
        try:
            self._open(primitive.address_info.as_tuple)
        except OSError as problem:
            self.problem = problem
            self.close()
            self.socket = None
            self.report(primitive, connected=False)
        else:
            self.report(primitive, connected=True)

    def _open(self, address: tuple[str, int] | tuple[str, int, int, int]) -> None:
        connection = cast(socket.socket, self.socket)
        if self.tls_args:
            context, host = self.tls_args
            self.socket = connection = context.wrap_socket(connection, server_side=False, server_hostname=host)
        connection.settimeout(self.assoc.connection_timeout)
        connection.connect(address)
        connection.settimeout(self.assoc.network_timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.assoc.requestor.address_info = AddressInformation.from_tuple(connection.getsockname())

    def recv(self, nr_bytes: int) -> bytearray:
        """The next `nr_bytes`, fewer when the connection ended. Raises OSError, also for a PDU that is too long or too slow."""
        connection, patience = self.socket, self.assoc.network_timeout
        if connection is None or nr_bytes > _LONGEST_ANSWER:
            self.end()
            raise ConnectionError("no connection, or a PDU that is longer than any answer")
        data, until = self._take(nr_bytes), time.monotonic() + (patience or 60.0)
        try:
            while len(data) < nr_bytes:
                connection.settimeout(max(0.01, until - time.monotonic()))
                chunk = connection.recv(nr_bytes - len(data))
                if not chunk:
                    break
                data += chunk
                if time.monotonic() > until:
                    raise TimeoutError("a PDU took too long")
        except TimeoutError:
            self.end()
            raise
        finally:
            connection.settimeout(patience)
        return data
