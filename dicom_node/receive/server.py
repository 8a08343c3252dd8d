"""The accept loop of the SCP: one thread that accepts, keeps the lobby and looks at the deadlines."""

from __future__ import annotations

import gc
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationServer

from dicom_node.dimse.association_pdu import Request
from dicom_node.receive.acceptor import Desk, Inbound
from dicom_node.receive.association_limit import Seats
from dicom_node.receive.pending import Guest, Lobby
from dicom_node.runtime.config import Receive

log = logging.getLogger(__name__)

_TICK = 0.1  # seconds between two looks at the deadlines
_COLLECT = 30.0  # seconds between two garbage collections


class Server(AssociationServer):
    """Accepts on a socket that is given, bound and listening; other processes may hold the same one.

    `stop` may be called from a signal handler or another thread.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        listener: socket.socket,
        contexts: list[PresentationContext],
        receive: Receive,
        desk: Desk,
        seats: Seats,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._listener = listener
        self._seats = seats
        self.receive = receive
        self.desk = desk
        self.intervention_handlers: dict[evt.EventType, Callable[..., Any]] = {}
        self._associations: set[Inbound] = set()
        self._guard = threading.Lock()
        self._next_collection = 0.0  # monotonic seconds
        self._stopping = False
        super().__init__(ae, listener.getsockname(), receive.ae_title, contexts, ssl_context)

    def serve_forever(self, poll_interval: float = _TICK, grace_seconds: float = 10.0) -> None:
        """Serve until `stop`; then associations under way may finish within `grace_seconds`, and are aborted after."""
        with selectors.DefaultSelector() as selector:
            lobby = Lobby(
                selector,
                max_guests=self.receive.max_silent,
                max_per_host=self.receive.max_per_host,
                seconds=self.receive.establish_seconds,
            )
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopping:
                for key, _ in selector.select(poll_interval):
                    try:
                        self._attend(key.data, lobby)
                    except Exception:
                        log.exception("a connection was given up")
                self._keep_time(lobby)
            selector.unregister(self._listener)
            lobby.close()
        # Only this process's hold on it: others that inherited the socket go on accepting.
        self._listener.close()
        self._finish(grace_seconds)

    def stop(self) -> None:
        self._stopping = True

    def take_seat(self, association: Inbound) -> bool:
        """Count it among the associations of all receivers, if there is room for one more of them and one more of its host.

        Raises OSError."""
        association.seat = self._seats.take(association.host)
        association.admitted = association.seat is not None
        return association.admitted

    def gone(self, association: Inbound) -> None:
        """An association's last word."""
        try:
            self.desk.closed(association)
        finally:
            with self._guard:
                self._associations.discard(association)
            if association.seat is not None:
                self._seats.leave(association.seat)

    def _attend(self, guest: Guest | None, lobby: Lobby) -> None:
        if guest is None:
            self._accept(lobby)
        elif request := lobby.listen(guest):
            self._begin(guest, request)

    def _accept(self, lobby: Lobby) -> None:
        try:
            connection, address = self._listener.accept()
        except BlockingIOError:
            return  # another process was faster
        except OSError as problem:
            log.error("a connection cannot be accepted: %s", problem)
            time.sleep(_TICK)  # out of descriptors: do not spin
            return
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            if self.ssl_context:
                # The handshake happens in the lobby's reads: nobody waits for it.
                connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            connection.close()  # it has left again
            return
        lobby.enter(connection, address)

    def _begin(self, guest: Guest, request: Request) -> None:
        with self._guard:
            full = len(self._associations) >= self.receive.max_associations + self.receive.max_silent
        if full:
            log.warning("connection from %s closed: too many are being rejected at once", guest.host)
            guest.socket.close()
            return
        try:
            association = Inbound(self, guest, request)
            with self._guard:
                self._associations.add(association)
        except Exception:
            guest.socket.close()
            raise
        try:
            association.start()
        except RuntimeError:  # no more threads
            self.gone(association)
            guest.socket.close()
            raise

    def _keep_time(self, lobby: Lobby | None) -> None:
        now = time.monotonic()
        if lobby is not None:
            lobby.keep_time(now)
            if now > self._next_collection:  # ended associations are cycles, and may hold half an object
                gc.collect()
                self._next_collection = now + _COLLECT
        for association in self._alive():
            association.keep_time(now, self.receive)

    def _finish(self, grace_seconds: float) -> None:
        """First those between two objects, then, when the grace is over, all; then the lines are cut."""
        deadline = time.monotonic() + grace_seconds
        while (alive := self._alive()) and time.monotonic() < deadline + 2.0:
            now = time.monotonic()
            for association in alive:
                if now > deadline or association.is_between_objects(now):
                    association.finish("we are stopping", now)
            self._keep_time(None)
            time.sleep(_TICK / 2)
        for association in self._alive():
            association.connection.end()
            association.join(1.0)

    def _alive(self) -> list[Inbound]:
        with self._guard:
            return list(self._associations)

    def _bind_defaults(self) -> None:
        for event in evt._INTERVENTION_EVENTS:
            self.intervention_handlers[event] = evt.get_default_handler(event)

    def server_bind(self) -> None:
        """Use the listener that was given instead of the socket that the base class made."""
        cast(socket.socket, self.socket).close()
        self._listener.setblocking(False)
        self.socket = self._listener
        self.server_address = self._listener.getsockname()

    def server_activate(self) -> None:
        """It listens already."""
