"""What an administrator reads when something is broken: one sentence with a remedy, no traceback, and the right exit code."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dicom_node.cli.main import main
from dicom_node.cli.supervisor import running
from dicom_node.receive.storage_scp import bind
from dicom_node.runtime import child_processes
from dicom_node.runtime.child_processes import ChildProcesses
from dicom_node.runtime.config import load
from dicom_node.runtime.errors import SourceDamaged, SpoolError
from dicom_node.runtime.shutdown import StopEvent
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.local_queue import LocalQueue
from dicom_node.storage.records import Arrival, Outcome, State
from dicom_node.storage.spool import Spool


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(
        "[node]\ndirectory = 'node'\nreserve_mb = 0\n[receive]\nhost = '127.0.0.1'\nport = 0\n"
        "[receive.allowed]\nMODALITY = []\n"
    )
    config = load(file)
    Spool.of(config)
    Ledger(config.ledger_path)
    return file


def says(config_file: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--config", str(config_file)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output
    return done


def test_a_damaged_ledger_is_said_and_the_other_checks_are_made(config_file: Path) -> None:
    ledger = load(config_file).ledger_path
    for file in ledger.parent.glob("ledger.sqlite*"):
        file.unlink()
    ledger.write_bytes(b"this is no ledger" * 1000)
    checked = {one["name"]: one for one in json.loads(says(config_file, "check", "--json").output)}
    assert not checked["ledger"]["ok"] and "restore a backup" in checked["ledger"]["text"]
    assert checked["model"]["ok"] and checked["disk"]["ok"]
    for verb in (["status"], ["jobs"], ["pause"]):
        done = says(config_file, *verb)
        assert (done.exit_code, done.output.count("\n")) == (4, 1)
        assert "restore a backup" in done.output


def test_what_cannot_be_written_or_is_no_state_is_said(config_file: Path, tmp_path: Path) -> None:
    done = says(config_file, "backup", "/nonexistent/copy.sqlite")
    assert done.exit_code == 4 and "/nonexistent/copy.sqlite: No such file or directory" in done.output
    assert says(config_file, "jobs", "--state", "nonsense").exit_code == 2
    for state in State:
        assert says(config_file, "jobs", "--state", state).exit_code != 2, "each state of the ledger can be asked for"


def test_who_may_not_look_is_told_as_whom_to_come(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/var/lib/segmenter")

    monkeypatch.setattr("dicom_node.storage.ledger.Ledger.__init__", closed)
    done = says(config_file, "status")
    assert done.exit_code == 4 and "as the user of the service" in done.output


def test_a_node_whose_process_number_is_somebody_elses_now_does_not_run(config_file: Path) -> None:
    """After a power cut run.json is still there, and names a process that lives: this one."""
    config = load(config_file)
    (config.node.directory / "run.json").write_text(json.dumps({"pid": os.getpid(), "port": 1, "children": {}}))
    assert running(config) is None
    with Spool.of(config).lock("run"):
        assert running(config) is not None
    assert running(config) is None


def test_verbs_that_run_each_on_their_own_are_a_running_node(config_file: Path) -> None:
    """As the units segmenter-worker@receive and their like, and the compose file, do it."""
    config_file.write_text(config_file.read_text().replace("port = 0", "port = 11999"))
    config = load(config_file)
    with Spool.of(config).lock("receive"), bind(config.receive):
        checked = {one["name"]: one for one in json.loads(says(config_file, "check", "--json").output)}
        assert checked["receive"]["ok"] and "running on port 11999" in checked["receive"]["text"]
        assert json.loads(says(config_file, "status", "--json").output)["running"] is True
    assert json.loads(says(config_file, "status", "--json").output)["running"] is False


def test_what_jobs_prints_can_be_copied(config_file: Path) -> None:
    """Through a pipe, too: an id that is cut is no id."""
    node = LocalQueue.of(load(config_file), "worker")
    path = node.spool.write(b"film").path
    syntax = "1.2.840.10008.1.2.1"
    job = node.ledger.add_arrival(Arrival("1.2.3", "1.2", syntax, "sha", path, 4, "A" * 16, "PTXSEG", "::1")).job_id
    claim = node.claim()
    assert claim is not None
    node.finish(claim, Outcome(State.FAILED, code="undecodable-pixel-data", sentence="..."))
    printed = says(config_file, "jobs").output
    assert job in printed and "undecodable-pixel-data" in printed
    assert "goes to" not in says(config_file, "show", job).output, "nothing goes anywhere"


def test_check_binds_as_the_receiver_does(config_file: Path) -> None:
    config_file.write_text(config_file.read_text().replace("'127.0.0.1'", "'::1'"))
    [receive] = [one for one in json.loads(says(config_file, "check", "--json").output) if one["name"] == "receive"]
    assert receive["ok"], receive


def test_a_certificate_of_the_door_that_is_missing_is_said(config_file: Path) -> None:
    with config_file.open("a") as file:
        file.write("[serve]\nenabled = true\ntls_certificate = 'serve.pem'\ntls_key = 'door.key'\n")
    checked = {one["name"]: one for one in json.loads(says(config_file, "check", "--json").output)}
    assert "serve.pem cannot be read" in checked["serve TLS"]["text"]
    done = says(config_file, "serve")
    assert done.exit_code == 2 and "serve.tls_certificate" in done.output


@pytest.mark.parametrize(("number", "problem"), [(errno.EMFILE, SpoolError), (errno.EIO, SourceDamaged)])
def test_a_trouble_of_the_moment_ends_no_film(
    number: int, problem: type[Exception], config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files: the film is given back. A disk that cannot read it: the film fails, and its resend heals it."""
    node = LocalQueue.of(load(config_file), "worker")
    path = node.spool.write(b"film").path
    node.ledger.add_arrival(Arrival("1.2.3", "1.2", "1.2.840.10008.1.2.1", "sha", path, 4, "MODALITY", "PTXSEG", "127.0.0.1"))
    claim = node.claim()
    assert claim is not None

    def in_trouble(_: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", in_trouble)
    with pytest.raises(problem):
        node.source(claim)


def test_a_signal_needs_no_lock() -> None:
    """It may interrupt the very thread that holds the event's."""
    stop = StopEvent()
    with stop._cond:  # type: ignore[attr-defined]
        stop.set_by_signal()
    assert stop.is_set() and stop.wait(120)
    assert not StopEvent().wait(0.01)


def test_a_child_that_cannot_be_started_again_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Result: no process numbers left for a moment; the supervisor goes on, and tries again."""
    monkeypatch.setattr(child_processes, "FAILED_START_SECONDS", 0.0)

    class Dead:
        pid = 0

        def poll(self) -> int | None:
            return -9

    troubles = [BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")] * 3
    started = []

    def start() -> Dead:
        if started and troubles:
            raise troubles.pop()
        started.append(time.monotonic())
        return Dead()

    family = ChildProcesses()
    family.start("work", start)  # type: ignore[arg-type]
    until = time.monotonic() + 20
    while len(started) < 2 and time.monotonic() < until:
        family.restart_dead()
        time.sleep(0.01)
    assert len(started) == 2 and not troubles
