"""One process per verb and spool: a lock that a second instance meets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dicom_node.runtime.config import Config
from dicom_node.runtime.errors import NodeError
from dicom_node.storage.spool import Spool, is_locked

VERBS = ("receive", "serve", "work", "send")  # in the order of the stop


@contextlib.contextmanager
def only_instance(spool: Spool, verb: str, patience: float = 15.0) -> Iterator[None]:
    """Hold the lock of a verb. A predecessor that was killed may need a moment to go; then NodeError."""
    until = time.monotonic() + patience
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(spool.lock(verb))
                break
            except NodeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield


def running_verbs(config: Config) -> list[str]:
    """Which of the verbs somebody is on this spool, under a supervisor or each on its own. Raises PermissionError for others
    than their user."""
    found = []
    for verb in VERBS:
        with contextlib.suppress(FileNotFoundError):
            found += [verb] if is_locked(config.spool_directory, verb) else []
    return found
