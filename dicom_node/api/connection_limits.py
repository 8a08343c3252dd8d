"""Limits of the HTTP server's connections. uvicorn has none of these: it waits for a request without end, and counts every
connection in its limit."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the head of a request, from the connect or from its first byte
MAX_CONNECTIONS = 500  # each is a file descriptor
MAX_PER_HOST = 100


class LimitedProtocol(H11Protocol):
    """Closes a connection whose request head takes longer than HEAD_SECONDS, and those of one host above MAX_PER_HOST. The time
    between two requests, and for a body, is limited elsewhere (timeout_keep_alive, `worker_server.BodyLimit`)."""

    of_host: ClassVar[Counter[str]] = Counter()

    _waits_since: float | None = None
    _host = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._host = self.client[0] if self.client else ""
        self.of_host[self._host] += 1
        if self.of_host[self._host] > MAX_PER_HOST:
            transport.abort()
            return
        self._waits_since = time.monotonic()
        self._schedule_check()

    def connection_lost(self, exc: Exception | None) -> None:
        self.of_host[self._host] -= 1
        if not self.of_host[self._host]:
            del self.of_host[self._host]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        former = self.cycle
        super().data_received(data)
        if self.cycle is not former:  # a head is complete
            self._waits_since = None
        elif self._waits_since is None and self._is_between_requests():
            self._waits_since = time.monotonic()

    def _is_between_requests(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _schedule_check(self) -> None:
        self.loop.call_later(HEAD_SECONDS / 4, self._check)

    def _check(self) -> None:
        if self.transport.is_closing():
            return
        if self._waits_since is not None and time.monotonic() - self._waits_since > HEAD_SECONDS:
            self.transport.abort()
            return
        self._schedule_check()
