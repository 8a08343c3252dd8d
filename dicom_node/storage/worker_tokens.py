"""Workers on other machines and their tokens. A token is shown once; the ledger has its SHA-256 only."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

from dicom_node.runtime.errors import NodeError
from dicom_node.storage.database import Store

_SEEN_SECONDS = 10.0  # the least time between two writes of seen_at


@dataclass(frozen=True)
class Worker:
    """One worker; times are seconds since the epoch."""

    name: str
    added_at: float
    revoked_at: float | None
    seen_at: float | None  # its last request for a job
    model: str | None  # of that request
    model_digest: str | None


class Workers:
    """The workers in `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.path = store.path

    def add(self, name: str) -> str:
        """A new token for `name`, which replaces an older one. Raises NodeError for an invalid name."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", name):
            raise NodeError(f"{name!r}: a worker's name has 1 to 32 letters, digits, dots, dashes or underscores")
        token = secrets.token_urlsafe(32)
        with self._store.write() as db:
            db.execute(
                "INSERT INTO workers (name, token_sha256, added_at) VALUES (?,?,?) ON CONFLICT (name)"
                " DO UPDATE SET token_sha256 = excluded.token_sha256, added_at = excluded.added_at, revoked_at = NULL",
                (name, digest(token), time.time()),
            )
        return token

    def revoke(self, name: str) -> None:
        """The token is not valid any more. Raises NodeError for an unknown name."""
        with self._store.write() as db:
            changed = db.execute("UPDATE workers SET revoked_at = ?, token_sha256 = '' WHERE name = ?", (time.time(), name))
        if not changed.rowcount:
            raise NodeError(f"no worker {name}; `workers list` shows them")

    def authenticate(self, token: str) -> str | None:
        """The worker with this token, None for an unknown one. Every digest is compared, each in constant time."""
        given, found = digest(token), None
        for name, known in self._store.read().execute("SELECT name, token_sha256 FROM workers WHERE revoked_at IS NULL"):
            if hmac.compare_digest(given, known):
                found = str(name)
        return found

    def record_seen(self, name: str, model: str, model_digest: str) -> None:
        """It requested a job just now, with this model."""
        now = time.time()
        row = self._store.read().execute("SELECT seen_at, model_digest FROM workers WHERE name = ?", (name,)).fetchone()
        if row is None or (row["model_digest"] == model_digest and 0 <= now - (row["seen_at"] or 0) < _SEEN_SECONDS):
            return
        with self._store.write() as db:
            db.execute(
                "UPDATE workers SET seen_at = ?, model = ?, model_digest = ? WHERE name = ?", (now, model, model_digest, name)
            )

    def all(self) -> list[Worker]:
        """Every worker by name, revoked ones too."""
        names = "name, added_at, revoked_at, seen_at, model, model_digest"
        return [Worker(*row) for row in self._store.read().execute(f"SELECT {names} FROM workers ORDER BY name")]


def digest(token: str) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()
