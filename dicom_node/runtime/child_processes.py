"""Child processes that are kept alive: started, started again when they die, stopped."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from dicom_node.runtime.errors import ConfigError, Missing

log = logging.getLogger(__name__)

QUICK_DEATH_SECONDS = 10.0  # a child that lives shorter is restarted with a growing delay
MOST_DELAY_SECONDS = 30.0
START_SECONDS = 120.0  # that a child may take to start on a slow machine; one that lived longer has run
EXIT_CONFIG, EXIT_MISSING = 2, 4  # of a verb that only an administrator can make start
FAILED_START_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Be killed when the supervisor dies, however it dies (Linux). Call first thing in a child."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


class Child(Protocol):
    """What is needed of a process; subprocess.Popen is one."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def verb_process(arguments: Sequence[str], config_path: Path | None, inherited: Sequence[int] = ()) -> Child:
    """A verb of our command line as a process; `inherited`: descriptors that it gets."""
    command = [sys.executable, "-m", "dicom_node.cli.main", *arguments, "--parent", str(os.getpid())]
    if config_path is not None:
        command += ["--config", str(config_path)]
    return subprocess.Popen(command, pass_fds=inherited)


class Forked:
    """A function in a copy of this process: it starts at once and shares what was imported. The process that forks has no
    second thread and no ledger open."""

    def __init__(self, run: Callable[[], None]) -> None:
        parent = os.getpid()

        def body() -> None:
            die_with_parent(parent)
            run()

        self._process = multiprocessing.get_context("fork").Process(target=body)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("fork", timeout or 0.0)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class Children:
    """Child processes by name. Belongs to the main thread: the parent-death signal follows the thread that started them."""

    def __init__(self) -> None:
        self._starts: dict[str, Callable[[], Child]] = {}
        self._processes: dict[str, Child] = {}
        self._started: dict[str, float] = {}
        self._deaths: dict[str, int] = {}  # quick ones in a row
        self._stayed: set[str] = set()  # those that have run
        self._restart_at: dict[str, float] = {}

    @property
    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self._processes.items()}

    def start(self, name: str, how: Callable[[], Child]) -> None:
        self._starts[name] = how
        self._processes[name] = how()
        self._started[name] = time.monotonic()

    def look_after(self) -> bool:
        """Start again who died; whether one was.

        Raises ConfigError or Missing when a verb ends with their exit code and never ran: trying again helps nobody. One that
        has run goes on being tried: the others work, and its cause may be a file that is being edited just now.
        """
        now, changed = time.monotonic(), False
        for name, child in list(self._processes.items()):
            if (code := child.poll()) is None:
                continue
            if name not in self._restart_at:
                lived = now - self._started[name]
                if lived > START_SECONDS:
                    self._stayed.add(name)
                if name not in self._stayed:
                    _give_up(name, code)
                quick = lived < QUICK_DEATH_SECONDS
                self._deaths[name] = self._deaths.get(name, 0) + 1 if quick else 0
                delay = min(MOST_DELAY_SECONDS, 2.0 ** min(self._deaths[name], 10) - 1)
                self._restart_at[name] = now + delay
                log.error("a process died", extra={"child": name, "exit": code, "restart_seconds": delay})
            if now >= self._restart_at[name]:
                try:
                    self.start(name, self._starts[name])
                except OSError as error:  # no memory or no process numbers just now: the others go on
                    log.error("a process cannot be started", extra={"child": name, "error": error.strerror})
                    self._restart_at[name] = now + FAILED_START_SECONDS
                    continue
                del self._restart_at[name]
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


def _give_up(name: str, code: int) -> None:
    sentence = f"`{name}` cannot start, so nothing is started; its own sentence stands above"
    if code == EXIT_CONFIG:
        raise ConfigError(sentence)
    if code == EXIT_MISSING:
        raise Missing(sentence)
