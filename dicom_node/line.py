"""The line under an association, plain or TLS.

What the library leaves open with TLS and this file closes: a record that is on the line need not carry data (a session
ticket, a key update, half a record), yet the library, seeing bytes, starts a read that nothing can end, and while it
waits there nothing is sent either: no answer, no abort. Here bytes on the line count once they are data.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

_HEADER = 6  # bytes of a PDU's header, what is read next (PS3.8 9.3.1)


class Line(AssociationSocket):
    """A socket that is ready when data is there."""

    def __init__(self, association: Association, **how: Any) -> None:
        super().__init__(association, **how)
        self._ahead = memoryview(b"")  # data that was read before anybody asked

    @property
    def ready(self) -> bool:
        return bool(self._ahead) or (bool(super().ready) and self._has_data())

    def recv(self, nr_bytes: int) -> bytearray:
        """The next `nr_bytes`, fewer when the connection ended. Raises OSError."""
        data = self._take(nr_bytes)
        return data + super().recv(nr_bytes - len(data))

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


class OutgoingLine(Line):
    """A line that we open. The library lets it wait without end once it is connected; here network_timeout holds on.

    What is short goes out at once: a C-STORE's command, held back until the one before was acknowledged, costs 40 ms.
    """

    def connect(self, primitive: T_CONNECT) -> None:
        super().connect(primitive)
        if self.socket is not None:
            self.socket.settimeout(self.assoc.network_timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Caller(ApplicationEntity):
    """An application entity whose associations are on such lines."""

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        line = OutgoingLine(assoc, address=address)
        line.tls_args = tls_args
        return line
