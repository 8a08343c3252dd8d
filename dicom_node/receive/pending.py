"""The lobby: connections that have not yet asked for an association.

A guest costs one selector entry and at most 64 KiB, no thread, however slowly it speaks; it becomes an association when
its A-ASSOCIATE-RQ is there, whole and readable. A TLS handshake happens here too, inside the reads, a step at a time.
An honest peer is here for milliseconds, so when the lobby is full, or one host holds more than its share, the guest
that has waited longest is shown out: newcomers always get in.
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
class Guest:
    """A connection that is still silent, or in the middle of its request."""

    socket: socket.socket  # non-blocking
    address: tuple[str, int]
    since: float  # monotonic seconds
    request: bytearray = field(default_factory=bytearray)

    @property
    def host(self) -> str:
        return self.address[0]


class Lobby:
    """The guests of one server. Not thread-safe: it belongs to the accept loop.

    `seconds`: from accept to a complete request. `max_per_host` is the share of one host while others wait too.
    """

    def __init__(self, selector: selectors.BaseSelector, *, max_guests: int, max_per_host: int, seconds: float) -> None:
        self._selector = selector
        self._max_guests = max_guests
        self._max_per_host = max_per_host
        self._seconds = seconds
        self._guests: dict[Guest, None] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, connection: socket.socket, address: tuple[str, int]) -> None:
        """Take a new connection in, if need be in place of the one that has waited longest."""
        connection.setblocking(False)
        guest = Guest(connection, address, time.monotonic())
        from_there = [one for one in self._guests if one.host == guest.host]
        if len(from_there) >= self._max_per_host:
            self._show_out(from_there[0], "made room for another connection from its host")
        elif len(self._guests) >= self._max_guests:
            self._show_out(next(iter(self._guests)), "made room for another connection")
        self._guests[guest] = None
        self._selector.register(connection, selectors.EVENT_READ, guest)

    def listen(self, guest: Guest) -> Request | None:
        """Read what has come. The A-ASSOCIATE-RQ once it is there, whole (the guest has then left), else None."""
        if guest not in self._guests:
            return None  # shown out a moment ago, in the same round of the selector
        try:
            while (missing := _missing(guest.request)) > 0:
                chunk = guest.socket.recv(missing)
                if not chunk:
                    self._show_out(guest, None)
                    return None
                guest.request += chunk
        except (BlockingIOError, ssl.SSLWantReadError):
            self._selector.modify(guest.socket, selectors.EVENT_READ, guest)
            return None
        except ssl.SSLWantWriteError:  # our part of the handshake does not fit on the line yet
            self._selector.modify(guest.socket, selectors.EVENT_WRITE, guest)
            return None
        except ssl.SSLError as problem:
            self._show_out(guest, tls_errors.of_sender(problem))
            return None
        except ValueError as problem:
            self._show_out(guest, str(problem), abort=_UNEXPECTED_PDU)
            return None
        except OSError:
            self._show_out(guest, None)
            return None
        request = _read(bytes(guest.request))
        if request is None:
            self._show_out(guest, "sent an A-ASSOCIATE-RQ that cannot be read", abort=_INVALID_VALUE)
            return None
        self._forget(guest)
        guest.socket.setblocking(True)
        return request

    def keep_time(self, now: float) -> None:
        """Show out every guest whose time is over."""
        while self._guests and (oldest := next(iter(self._guests))) and now - oldest.since > self._seconds:
            self._show_out(oldest, f"asked for no association within {self._seconds:g} s")

    def close(self) -> None:
        for guest in list(self._guests):
            self._show_out(guest, None)

    def _forget(self, guest: Guest) -> None:
        del self._guests[guest]
        self._selector.unregister(guest.socket)

    def _show_out(self, guest: Guest, reason: str | None, *, abort: int | None = None) -> None:
        self._forget(guest)
        if reason:
            log.info("connection from %s closed: it %s", guest.host, reason)
        try:
            if abort is not None:
                guest.socket.send(struct.pack(">BBLBBBB", 0x07, 0, 4, 0, 0, 2, abort))  # by the provider (PS3.8 9.3.8)
            guest.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has left by itself
        finally:
            guest.socket.close()


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
