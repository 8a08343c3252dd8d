"""Pending connections: those that have not yet asked for an association.

One costs a selector entry and at most 64 KiB, no thread, however slowly its peer sends; it becomes an association when its
A-ASSOCIATE-RQ is there, whole and readable. A TLS handshake happens here too, inside the reads, a step at a time.
An honest peer is pending for milliseconds, so when there are too many, or one host holds more than its share, the
connection that has waited longest is evicted: new ones are always accepted.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field

from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicom_node.dimse.association_pdu import Request, read_request
from dicom_node.runtime import tls_errors

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 * 1024  # 128 contexts with all our syntaxes need 50 KiB
_HEADER = 6  # type, reserved, length (PS3.8 9.3.1)
_UNEXPECTED_PDU, _INVALID_VALUE = 2, 6  # reasons of an A-ABORT by the provider (PS3.8 table 9-26)


@dataclass(eq=False)
class PendingConnection:
    """A connection on which nothing has come yet, or a part of the A-ASSOCIATE-RQ."""

    socket: socket.socket  # non-blocking
    address: tuple[str, int]
    since: float  # monotonic seconds
    request: bytearray = field(default_factory=bytearray)

    @property
    def host(self) -> str:
        """The peer's address."""
        return self.address[0]


class PendingConnections:
    """The pending connections of one server. Not thread-safe: they belong to the accept loop.

    `seconds`: from accept to a complete request. `max_per_host` is the share of one host while others wait too.
    """

    def __init__(self, selector: selectors.BaseSelector, *, max_connections: int, max_per_host: int, seconds: float) -> None:
        self._selector = selector
        self._max_connections = max_connections
        self._max_per_host = max_per_host
        self._seconds = seconds
        self._connections: dict[PendingConnection, None] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        """Take a new connection, if need be in place of the one that has waited longest."""
        accepted.setblocking(False)
        connection = PendingConnection(accepted, address, time.monotonic())
        of_host = [one for one in self._connections if one.host == connection.host]
        if len(of_host) >= self._max_per_host:
            self._evict(of_host[0], "made way: receive.max_per_host connections of its host are pending")
        elif len(self._connections) >= self._max_connections:
            self._evict(next(iter(self._connections)), "made way: receive.max_silent connections are pending")
        self._connections[connection] = None
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def read(self, connection: PendingConnection) -> Request | None:
        """Read what has come. The A-ASSOCIATE-RQ once it is whole (the connection is then no longer pending), else None."""
        if connection not in self._connections:
            return None  # evicted a moment ago, in the same round of the selector
        try:
            while (missing := _missing(connection.request)) > 0:
                chunk = connection.socket.recv(missing)
                if not chunk:
                    self._evict(connection, None)
                    return None
                connection.request += chunk
        except (BlockingIOError, ssl.SSLWantReadError):
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            return None
        except ssl.SSLWantWriteError:  # the socket takes no more of our part of the handshake now
            self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
            return None
        except ssl.SSLError as problem:
            self._evict(connection, tls_errors.of_sender(problem))
            return None
        except ValueError as problem:
            self._evict(connection, str(problem), abort=_UNEXPECTED_PDU)
            return None
        except OSError:
            self._evict(connection, None)
            return None
        request = _read(bytes(connection.request))
        if request is None:
            self._evict(connection, "sent an A-ASSOCIATE-RQ that cannot be read", abort=_INVALID_VALUE)
            return None
        self._forget(connection)
        connection.socket.setblocking(True)
        return request

    def keep_time(self, now: float) -> None:
        """Evict every connection whose time is over. `now`: monotonic seconds."""
        while self._connections and (oldest := next(iter(self._connections))) and now - oldest.since > self._seconds:
            self._evict(oldest, f"asked for no association within {self._seconds:g} s")

    def close(self) -> None:
        """Close all of them."""
        for connection in list(self._connections):
            self._evict(connection, None)

    def _forget(self, connection: PendingConnection) -> None:
        del self._connections[connection]
        self._selector.unregister(connection.socket)

    def _evict(self, connection: PendingConnection, reason: str | None, *, abort: int | None = None) -> None:
        self._forget(connection)
        if reason:
            log.info("connection from %s closed: it %s", connection.host, reason)
        try:
            if abort is not None:
                connection.socket.send(struct.pack(">BBLBBBB", 0x07, 0, 4, 0, 0, 2, abort))  # by the provider (PS3.8 9.3.8)
            connection.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer has closed it
        finally:
            connection.socket.close()


def _missing(request: bytearray) -> int:
    """How many bytes to read next. Raises ValueError when this is not going to be an A-ASSOCIATE-RQ."""
    if len(request) < _HEADER:
        return _HEADER - len(request)
    kind, _, length = struct.unpack_from(">BBL", request)
    if kind != 0x01:
        raise ValueError(tls_errors.of_first_byte(kind))
    if length > MAX_REQUEST_BYTES:
        raise ValueError(f"declared a request of {length} bytes, {MAX_REQUEST_BYTES} are allowed")
    return int(_HEADER + length - len(request))


def _read(pdu: bytes) -> Request | None:
    """None when it cannot be read, or not by the library: such a one would cost two threads and their time-out."""
    try:
        request = read_request(pdu)
        plain = A_ASSOCIATE_RQ()
        plain.decode(request.pdu)
        plain.to_primitive()
    except Exception:  # noqa: BLE001  mutated bytes make the library raise nearly anything
        return None
    return request
