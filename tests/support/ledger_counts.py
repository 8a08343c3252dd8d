"""How many jobs and deliveries of a ledger are in which state."""

from __future__ import annotations

from dicom_node.storage.database import Store
from dicom_node.storage.records import State


def jobs_by_state(store: Store) -> dict[State, int]:
    """Every state is there, with 0 where no job is in it."""
    found = dict(store.read().execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    return {state: found.get(state, 0) for state in State}


def open_deliveries(store: Store) -> int:
    """Deliveries that are neither delivered nor refused."""
    return int(store.read().execute("SELECT count(*) FROM deliveries WHERE state IN ('pending', 'sent')").fetchone()[0])
