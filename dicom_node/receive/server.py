"""The accept loop of the SCP: one thread that accepts connections and looks at the deadlines."""

from __future__ import annotations

import gc
import logging
import selectors
import socket
import ssl
import threading
import time

from pynetdicom.ae import ApplicationEntity

from dicom_node.dimse.association_pdu import Request
from dicom_node.receive.acceptor import AcceptorAssociation, Handlers
from dicom_node.receive.pending import PendingConnection, PendingConnections
from dicom_node.runtime.config_sections import Receive

log = logging.getLogger(__name__)

_TICK = 0.1  # seconds between two looks at the deadlines
_COLLECT = 30.0  # seconds between two garbage collections


class Server:
    """Accepts on `listener`, which is bound and listening; other processes may hold the same one.

    `tls`: None for plain DICOM.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        listener: socket.socket,
        receive: Receive,
        handlers: Handlers,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        listener.setblocking(False)
        self._ae = ae
        self._listener = listener
        self._receive = receive
        self._handlers = handlers
        self._tls = tls
        self._associations: set[AcceptorAssociation] = set()
        self._guard = threading.Lock()
        self._next_collection = 0.0  # monotonic seconds
        self._stopping = False

    def serve_forever(self, grace_seconds: float) -> None:
        """Serve until `stop`; then associations under way may finish within `grace_seconds`, and are aborted after."""
        with selectors.DefaultSelector() as selector:
            pending = PendingConnections(
                selector,
                max_connections=self._receive.max_silent,
                max_per_host=self._receive.max_per_host,
                seconds=self._receive.establish_seconds,
            )
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopping:
                for key, _ in selector.select(_TICK):
                    try:
                        self._serve(key.data, pending)
                    except Exception:
                        log.exception("a connection was given up")
                self._keep_time(pending)
            selector.unregister(self._listener)
            pending.close()
        # Only this process's hold on it: others that inherited the socket go on accepting.
        self._listener.close()
        self._finish(grace_seconds)

    def stop(self) -> None:
        """No new connections. Safe in a signal handler and from any thread."""
        self._stopping = True

    def _serve(self, connection: PendingConnection | None, pending: PendingConnections) -> None:
        if connection is None:
            self._accept(pending)
        elif request := pending.read(connection):
            self._begin(connection, request)

    def _accept(self, pending: PendingConnections) -> None:
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
            if self._tls:
                # The handshake happens in the reads of the pending connection: nobody waits for it.
                connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            connection.close()  # the peer has closed it
            return
        pending.add(connection, address)

    def _begin(self, connection: PendingConnection, request: Request) -> None:
        with self._guard:
            full = len(self._associations) >= self._receive.max_associations + self._receive.max_silent
        if full:
            log.warning("connection from %s closed: too many are being rejected at once", connection.host)
            connection.socket.close()
            return
        try:
            association = AcceptorAssociation(self._ae, connection, request, self._receive, self._handlers, self._forget)
            with self._guard:
                self._associations.add(association)
        except Exception:
            connection.socket.close()
            raise
        try:
            association.start()
        except RuntimeError:  # no more threads
            self._handlers.closed(association)
            self._forget(association)
            connection.socket.close()
            raise

    def _forget(self, association: AcceptorAssociation) -> None:
        with self._guard:
            self._associations.discard(association)

    def _keep_time(self, pending: PendingConnections | None) -> None:
        now = time.monotonic()
        if pending is not None:
            pending.keep_time(now)
            if now > self._next_collection:  # ended associations are cycles, and may hold half an object
                gc.collect()
                self._next_collection = now + _COLLECT
        for association in self._alive():
            association.keep_time(now)

    def _finish(self, grace_seconds: float) -> None:
        """First those between two objects, then, when the grace is over, all; then the connections are cut."""
        deadline = time.monotonic() + grace_seconds
        while (alive := self._alive()) and time.monotonic() < deadline + 2.0:
            now = time.monotonic()
            for association in alive:
                if now > deadline or association.is_between_objects(now):
                    association.finish("we are stopping", now)
            self._keep_time(None)
            time.sleep(_TICK / 2)
        for association in self._alive():
            association.transport.end()
            association.join(1.0)

    def _alive(self) -> list[AcceptorAssociation]:
        with self._guard:
            return list(self._associations)
