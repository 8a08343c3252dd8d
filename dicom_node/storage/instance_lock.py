"""One process per subcommand and spool: a second instance does not start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dicom_node.runtime.config import Config
from dicom_node.runtime.errors import NodeError
from dicom_node.storage.spool import Spool, is_locked

VERBS = ("receive", "serve", "work", "send")  # in the order in which they are stopped


@contextlib.contextmanager
def only_instance(spool: Spool, verb: str, wait_seconds: float = 15.0) -> Iterator[None]:
    """Hold the lock of `verb`. Raises NodeError when another process has it for `wait_seconds`: one that was killed may need a
    moment to end."""
    until = time.monotonic() + wait_seconds
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
    """The subcommands that run on this spool, under a supervisor or alone. Raises PermissionError for another user than
    theirs."""
    found = []
    for verb in VERBS:
        with contextlib.suppress(FileNotFoundError):
            found += [verb] if is_locked(config.spool_directory, verb) else []
    return found
