"""Faults that stay where they are: a child that fails, a thread that fails, a ledger that cannot be used."""

from __future__ import annotations

import itertools
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import dicom_node
from dicom_node.cli.main import main
from dicom_node.runtime import child_processes
from dicom_node.runtime.child_processes import ChildProcesses
from dicom_node.runtime.config import load
from dicom_node.runtime.errors import ConfigError, LedgerUnusable, Missing
from dicom_node.storage.database import SCHEMA_VERSION
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import Arrival
from dicom_node.storage.spool import Spool

CONFIG = (
    "[node]\ndirectory = 'node'\nreserve_mb = 0\n[receive]\nhost = '127.0.0.1'\nport = 0\n[receive.allowed]\nMODALITY = []\n"
)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return file


def started(config_file: Path, verb: str) -> tuple[int, str]:
    """(exit code, what was said) of a verb as a process of its own. Each is expected to end by itself."""
    command = [sys.executable, "-m", "dicom_node.cli.main", verb, "--config", str(config_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout + done.stderr


# -- children --------------------------------------------------------------------------------------------------


class Ended:
    pid = 0

    def __init__(self, code: int) -> None:
        self._code = code

    def poll(self) -> int:
        return self._code


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(child_processes, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_child_that_dies_for_ever_is_started_for_ever(clock: SimpleNamespace) -> None:
    """1,500 quick deaths, which takes half a day. Result: the delay stays at half a minute, and the supervisor lives."""
    family, starts = ChildProcesses(), []
    family.start("work", lambda: starts.append(clock.now) or Ended(1))  # type: ignore[func-returns-value]
    while len(starts) < 1500:
        family.restart_dead()
        clock.now += 1.0
    assert max(later - former for former, later in itertools.pairwise(starts)) <= 32


@pytest.mark.parametrize(("code", "error"), [(2, ConfigError), (4, Missing), (1, None), (-9, None)])
def test_a_child_that_cannot_start_ends_the_run_and_one_that_ran_is_tried_again(
    code: int, error: type[Exception] | None, clock: SimpleNamespace
) -> None:
    family, starts = ChildProcesses(), []
    family.start("serve", lambda: starts.append(clock.now) or Ended(code))  # type: ignore[func-returns-value]
    clock.now += 40  # on a slow machine the start alone takes that long
    if error:
        with pytest.raises(error, match="`serve` cannot start"):
            family.restart_dead()
        family = ChildProcesses()
        family.start("serve", lambda: starts.append(clock.now) or Ended(code))  # type: ignore[func-returns-value]
    clock.now += 600  # it ran for ten minutes
    for _ in range(200):
        family.restart_dead()
        clock.now += 1.0
    assert len(starts) > 5


def test_a_port_that_is_taken_ends_the_run_with_a_sentence(config_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config_file.write_text(f"{CONFIG}[serve]\nenabled = true\nport = {port}\n[work]\nprocesses = 0\n")
        code, said = started(config_file, "run")
    assert code == 2, said
    assert f"serve.host, serve.port: cannot listen on 127.0.0.1:{port}" in said and "Traceback" not in said
    assert not (config_file.parent / "node" / "run.json").exists()


# -- threads ---------------------------------------------------------------------------------------------------

_THREADS = {
    "heartbeat": """
from dicom_node.work.job_runner import Heartbeat
class Node:
    heartbeat_seconds = 0.01
    def renew(self, claims): raise KeyError("nobody foresaw this")
Heartbeat(Node(), types.SimpleNamespace(owner="a")).__enter__()
""",
    "pool-watch": """
from dicom_node.work.pool_watch import ForkGuard, PoolWatch, StallWatch, ZombieWatch
class Queue:
    def reap(self): raise KeyError("nobody foresaw this")
PoolWatch(ForkGuard(Queue()), None, StallWatch(), ZombieWatch(), poll_seconds=0.01).start()
""",
    "dispatcher": """
from dicom_node.work.celery_app import celery_app
from dicom_node.work.wakeup import Dispatcher
def ready(): raise KeyError("nobody foresaw this")
Dispatcher(celery_app(config.queue, config.work), ready, 0.01).start()
""",
    "retention": """
from dicom_node.cli import processes
from dicom_node.runtime.listening import listening
from dicom_node.runtime.shutdown import StopEvent
from dicom_node.storage import retention
def run(self, stop): raise KeyError("nobody foresaw this")
retention.Cleanup.run = run
processes._take_films(config, listening("127.0.0.1", 0, ""), StopEvent(), keeps=True)
""",
    "serve": """
from dicom_node.cli import processes
from dicom_node.receive import server
from dicom_node.runtime.listening import listening
from dicom_node.runtime.shutdown import StopEvent
def keep_time(self, waiting): raise KeyError("nobody foresaw this")
server.Server._keep_time = keep_time
processes._take_films(config, listening("127.0.0.1", 0, ""), StopEvent(), keeps=False)
""",
    "http": """
import uvicorn
from dicom_node.cli import processes
def run(self, sockets): raise KeyError("nobody foresaw this")
uvicorn.Server.run = run
processes.serve(config)
""",
}


@pytest.mark.parametrize("name", _THREADS)
def test_an_error_in_a_thread_ends_its_process_and_says_so(name: str, config_file: Path) -> None:
    program = f"""
import pathlib, threading, time, types
from dicom_node.runtime import logs
from dicom_node.runtime.config import load
config = load(pathlib.Path({str(config_file)!r}))
logs.start(config.log, "test")
{_THREADS[name]}
time.sleep(120)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    assert f"thread '{name}'" in done.stderr and "KeyError at" in done.stderr, done.stderr


def test_no_thread_of_the_node_is_left_to_die_alone() -> None:
    """Whoever needs one takes EssentialThread; pools hand their errors to who asks for the result."""
    for file in Path(dicom_node.__file__).parent.rglob("*.py"):
        if file.name not in ("threads.py", "requestor.py"):  # one of an association ends with it
            assert "threading.Thread(" not in file.read_text() and "Timer(" not in file.read_text(), file.name


# -- the ledger ------------------------------------------------------------------------------------------------


def newer(ledger: Path) -> None:
    with sqlite3.connect(ledger) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()


def no_database(ledger: Path) -> None:
    ledger.write_bytes(b"this is no ledger" * 1000)


def torn(ledger: Path) -> None:
    """The head is sound, so it can be opened; what follows is not."""
    with ledger.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(ledger.stat().st_size - 4096))


def a_folder(ledger: Path) -> None:
    ledger.unlink()
    ledger.mkdir()


def broken_by(how: Callable[[Path], None], config_file: Path) -> None:
    config = load(config_file)
    Spool.of(config).write(b"film")
    ledger = Ledger(config.ledger_path)
    for number in range(200):
        ledger.add_arrival(Arrival(f"1.2.{number}", "1.2", "1.2", "sha", "", 1, "A", "B", "127.0.0.1"))
    ledger.store.read().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.store.close()
    how(config.ledger_path)


def lost(ledger: Path) -> None:
    """Films are in the spool, and a new ledger would name none of them."""
    ledger.unlink()


def emptied(ledger: Path) -> None:
    ledger.write_bytes(b"")


BROKEN = {
    newer: "schema version",
    no_database: "is damaged",
    torn: "is damaged",
    a_folder: "is not a file",
    lost: "there are films in",
    emptied: "there are films in",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_ledger_that_cannot_be_used_ends_the_run_with_one_sentence(how: Callable[[Path], None], config_file: Path) -> None:
    broken_by(how, config_file)
    code, said = started(config_file, "run")
    assert (code, said.count("\n")) == (4, 1), said
    assert BROKEN[how] in said and "Traceback" not in said and "restore" in said


@pytest.mark.parametrize("how", [newer, no_database])
def test_so_it_does_every_verb(how: Callable[[Path], None], config_file: Path) -> None:
    broken_by(how, config_file)
    for verb in ("receive", "send", "serve", "work") if how is newer else ():
        code, said = started(config_file, verb)
        lines = [line for line in said.splitlines() if "segmenter-worker:" in line]
        assert (code, len(lines)) == (4, 1) and "Traceback" not in said, said
        assert BROKEN[how] in lines[0]
    for arguments in (["status"], ["jobs"], ["show", "ab"], ["pause"], ["journal"], ["workers", "list"]):
        done = CliRunner().invoke(main, [*arguments, "--config", str(config_file)])
        assert (done.exit_code, done.output.count("\n")) == (4, 1), done.output
        assert BROKEN[how] in done.output


def test_damage_that_is_met_while_a_verb_runs_is_said_in_one_sentence(config_file: Path) -> None:
    broken_by(torn, config_file)
    code, said = started(config_file, "send")
    assert (code, said.count("damaged")) == (4, 1) and "Traceback" not in said, said


def test_a_ledger_that_may_not_be_written_is_said(config_file: Path) -> None:
    config = load(config_file)
    Spool.of(config)
    store = Ledger(config.ledger_path).store
    store.read().execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerUnusable, match="service's user"):
        store.try_out(1.0)
