"""Child processes that are kept alive: started, started again when they die, stopped."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

QUICK_DEATH_SECONDS = 10.0  # a child that lives shorter is restarted with a growing delay
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Be killed when the supervisor dies, however it dies (Linux). Call first thing in a child."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


class Children:
    """Verbs of our command line as child processes, by name. Belongs to the main thread: the parent-death signal follows
    the thread that started the child."""

    def __init__(self, config_path: Path | None) -> None:
        self._config = [] if config_path is None else ["--config", str(config_path)]
        self._verbs: dict[str, tuple[Sequence[str], Sequence[int]]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._deaths: dict[str, int] = {}
        self._restart_at: dict[str, float] = {}

    @property
    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self._processes.items()}

    def start(self, name: str, verb: Sequence[str], inherited: Sequence[int] = ()) -> None:
        """`verb` with its options; `inherited`: descriptors that it gets."""
        self._verbs[name] = (verb, inherited)
        command = [sys.executable, "-m", "dicom_node.cli", *verb, "--parent", str(os.getpid()), *self._config]
        self._processes[name] = subprocess.Popen(command, pass_fds=inherited)
        self._started[name] = time.monotonic()

    def look_after(self) -> bool:
        """Start again who died; whether one was."""
        now, changed = time.monotonic(), False
        for name, child in self._processes.items():
            if child.poll() is None:
                continue
            if name not in self._restart_at:
                quick = now - self._started[name] < QUICK_DEATH_SECONDS
                self._deaths[name] = self._deaths.get(name, 0) + 1 if quick else 0
                delay = min(30.0, 2.0 ** self._deaths[name] - 1)
                self._restart_at[name] = now + delay
                log.error("a process died", extra={"child": name, "exit": child.returncode, "restart_seconds": delay})
            if now >= self._restart_at[name]:
                del self._restart_at[name]
                self.start(name, *self._verbs[name])
                changed = True
        return changed

    def stop(self, names: Iterable[str], until: float) -> None:
        """SIGTERM to all of them at once, SIGKILL to those that are still there at `until` (monotonic seconds)."""
        children = [(name, self._processes[name]) for name in names]
        for _, child in children:
            if child.poll() is None:
                child.terminate()
        for name, child in children:
            try:
                child.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("a process did not stop in time and is killed", extra={"child": name})
                child.kill()
                child.wait()
