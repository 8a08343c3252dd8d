"""Workers on other machines: who they are, and the tokens that let them in. A token is shown once and kept as a digest."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

from dicom_node.runtime.errors import NodeError
from dicom_node.storage.database import Store

_SEEN_SECONDS = 10.0  # a row is written at most so often for being seen


@dataclass(frozen=True)
class Worker:
    """One worker as the node knows it; times are seconds since the epoch."""

    name: str
    added_at: float
    revoked_at: float | None
    seen_at: float | None
    model: str | None
    model_digest: str | None


class Workers:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.path = store.path

    def add(self, name: str) -> str:
        """A new token for `name`, in place of an older one. Raises NodeError for a name that is none."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", name):
            raise NodeError(f"{name!r}: a worker's name is 1 to 32 letters, digits, points, dashes")
        token = secrets.token_urlsafe(32)
        with self._store.write() as db:
            db.execute(
                "INSERT INTO workers (name, token_sha256, added_at) VALUES (?,?,?) ON CONFLICT (name)"
                " DO UPDATE SET token_sha256 = excluded.token_sha256, added_at = excluded.added_at, revoked_at = NULL",
                (name, digest(token), time.time()),
            )
        return token

    def revoke(self, name: str) -> None:
        """From now on the token opens nothing. Raises NodeError for an unknown name."""
        with self._store.write() as db:
            changed = db.execute("UPDATE workers SET revoked_at = ?, token_sha256 = '' WHERE name = ?", (time.time(), name))
        if not changed.rowcount:
            raise NodeError(f"no worker {name}; `workers list` shows them")

    def who(self, token: str) -> str | None:
        """The worker whose token it is. Every digest is compared, each in constant time."""
        given, found = digest(token), None
        for name, known in self._store.read().execute("SELECT name, token_sha256 FROM workers WHERE revoked_at IS NULL"):
            if hmac.compare_digest(given, known):
                found = str(name)
        return found

    def seen(self, name: str, model: str, model_digest: str) -> None:
        """It asked for work just now, with this model."""
        now = time.time()
        row = self._store.read().execute("SELECT seen_at, model_digest FROM workers WHERE name = ?", (name,)).fetchone()
        if row is None or (row["model_digest"] == model_digest and 0 <= now - (row["seen_at"] or 0) < _SEEN_SECONDS):
            return
        with self._store.write() as db:
            db.execute(
                "UPDATE workers SET seen_at = ?, model = ?, model_digest = ? WHERE name = ?", (now, model, model_digest, name)
            )

    def all(self) -> list[Worker]:
        names = "name, added_at, revoked_at, seen_at, model, model_digest"
        return [Worker(*row) for row in self._store.read().execute(f"SELECT {names} FROM workers ORDER BY name")]


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
