"""How many associations there may be at once, in all receiver processes together.

A slot is two bytes of a file on which its process holds a lock: one of all slots, and one of those of its host. The kernel
takes the locks back when the process ends, however it ends: no slot is lost by a crash, and none is given twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from pathlib import Path
from typing import NamedTuple

_OF_HOSTS = 2**20  # where the slots of the hosts begin; the file itself stays empty


class AssociationSlot(NamedTuple):
    """The right to one association: offsets of the two locked bytes."""

    of_all: int
    of_host: int


class AssociationLimit:
    """`total` slots (at most 2^20), `per_host` (at most 2^14) of them for one host. Every process opens the file once (locks go
    with the first close)."""

    def __init__(self, file: Path, total: int, per_host: int) -> None:
        """Raises OSError."""
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._total, self._per_host = total, per_host
        self._ours: set[int] = set()  # a process does not stand in its own way: its locks are remembered here
        self._lock = threading.Lock()

    def acquire(self, host: str) -> AssociationSlot | None:
        """None when no slot is left, or none for this host. Raises OSError."""
        with self._lock:
            of_all = self._first_free(0, self._total)
            if of_all is None:
                return None
            of_host = None
            try:
                of_host = self._first_free(_OF_HOSTS + _number(host) * self._per_host, self._per_host)
            finally:  # the kernel may be out of locks (ENOLCK): the first byte must not stay ours then
                if of_host is None:
                    self._free(of_all)
            return None if of_host is None else AssociationSlot(of_all, of_host)

    def release(self, slot: AssociationSlot) -> None:
        """Raises OSError; nothing is kept then either."""
        with self._lock:
            try:
                self._free(slot.of_host)
            finally:
                self._free(slot.of_all)

    def close(self) -> None:
        """Gives back all slots of this process."""
        os.close(self._file)

    def _first_free(self, first: int, count: int) -> int | None:
        for byte in range(first, first + count):
            if byte in self._ours:
                continue
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except (BlockingIOError, PermissionError):
                continue  # another process has it; some file systems say it with EACCES (POSIX fcntl)
            self._ours.add(byte)
            return byte
        return None

    def _free(self, byte: int) -> None:
        self._ours.discard(byte)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)


def _number(host: str) -> int:
    """Of 48 bits: two hosts that share one would share their slots, and nothing worse."""
    return int.from_bytes(hashlib.sha256(host.encode()).digest()[:6], "big")
