"""Child processes that are kept running: started, restarted when they exit, stopped."""

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

QUICK_EXIT_SECONDS = 10.0  # a child that ran shorter is restarted with a growing delay
MAX_DELAY_SECONDS = 30.0
START_SECONDS = 120.0  # that a child may take to start on a slow machine; one that ran longer has started
EXIT_CONFIG, EXIT_MISSING = 2, 4  # of a subcommand that only an administrator can make start
FAILED_START_SECONDS = 5.0  # wait before the next try when the system could not start the process
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, pid `parent`, dies, however it dies (Linux, prctl(2)). Call it
    first in a child; exits with 1 when the parent is gone already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)


class ChildProcess(Protocol):
    """The part of subprocess.Popen that `ChildProcesses` needs."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def verb_process(arguments: Sequence[str], config_path: Path | None, inherited: Sequence[int] = ()) -> ChildProcess:
    """Start a subcommand of segmenter-worker. `inherited`: file descriptors that it gets. Raises OSError."""
    command = [sys.executable, "-m", "dicom_node.cli.main", *arguments, "--parent", str(os.getpid())]
    if config_path is not None:
        command += ["--config", str(config_path)]
    return subprocess.Popen(command, pass_fds=inherited)


class ForkedProcess:
    """A function in a fork of this process: it starts at once and shares what was imported. The process that forks must have
    no second thread and no open ledger."""

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


class ChildProcesses:
    """Child processes by name. Belongs to the main thread: the parent-death signal follows the thread that started them."""

    def __init__(self) -> None:
        self._starts: dict[str, Callable[[], ChildProcess]] = {}
        self._processes: dict[str, ChildProcess] = {}
        self._started: dict[str, float] = {}
        self._quick_exits: dict[str, int] = {}  # in a row
        self._has_run: set[str] = set()
        self._restart_at: dict[str, float] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Pids by name; of a child that exited and is not yet restarted, the former one."""
        return {name: child.pid for name, child in self._processes.items()}

    def start(self, name: str, start: Callable[[], ChildProcess]) -> None:
        """Start a child with `start`, which is called again for each restart. Raises what `start` raises."""
        self._starts[name] = start
        self._processes[name] = start()
        self._started[name] = time.monotonic()

    def restart_dead(self) -> bool:
        """Restart the children that exited; whether one was restarted.

        Raises ConfigError or Missing when a child ends with their exit code and has never run: trying again helps nobody. One
        that has run is restarted again and again: the others work, and the cause may be a file that is just being edited.
        """
        now, changed = time.monotonic(), False
        for name, child in list(self._processes.items()):
            if (code := child.poll()) is None:
                continue
            if name not in self._restart_at:
                ran_seconds = now - self._started[name]
                if ran_seconds > START_SECONDS:
                    self._has_run.add(name)
                if name not in self._has_run:
                    _raise_if_permanent(name, code)
                quick = ran_seconds < QUICK_EXIT_SECONDS
                self._quick_exits[name] = self._quick_exits.get(name, 0) + 1 if quick else 0
                delay = min(MAX_DELAY_SECONDS, 2.0 ** min(self._quick_exits[name], 10) - 1)
                self._restart_at[name] = now + delay
                log.error("a process died", extra={"child": name, "exit": code, "restart_seconds": delay})
            if now >= self._restart_at[name]:
                try:
                    self.start(name, self._starts[name])
                except OSError as error:  # out of memory or process ids for the moment
                    log.error("a process cannot be started", extra={"child": name, "error": error.strerror})
                    self._restart_at[name] = now + FAILED_START_SECONDS
                    continue
                del self._restart_at[name]
                changed = True
        return changed

    def stop(self, names: Iterable[str], until: float) -> None:
        """SIGTERM to the named children at once, SIGKILL to those that still run at `until` (seconds, monotonic clock)."""
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


def _raise_if_permanent(name: str, code: int) -> None:
    sentence = f"`{name}` cannot start, so nothing is started; its own message is above"
    if code == EXIT_CONFIG:
        raise ConfigError(sentence)
    if code == EXIT_MISSING:
        raise Missing(sentence)
