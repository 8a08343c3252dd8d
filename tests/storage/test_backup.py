"""From a running node to a copy, and from a copy back to a node: nothing is destroyed, and what is missing is named."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dicom_node.cli.main import main
from dicom_node.runtime.config import Config, load
from dicom_node.storage.database import SCHEMA_VERSION, Store
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.local_queue import LocalQueue
from dicom_node.storage.records import Arrival, Outcome, State, StoredObject


@dataclass
class Site:
    """A node's folder, with one film that was answered."""

    file: Path
    config: Config
    node: LocalQueue
    first: str  # job id

    def film(self, uid: str) -> str:
        path = self.node.spool.write(uid.encode()).path
        return self.node.ledger.add_arrival(Arrival(uid, "1.2", "1.2", uid, path, 4, "A", "B", "127.0.0.1")).job_id

    def says(self, *arguments: object) -> Result:
        done = CliRunner().invoke(main, [*map(str, arguments), "--config", str(self.file)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def jobs(self) -> set[str]:
        return {job.job_id for job in Ledger(self.config.ledger_path).jobs()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    file = tmp_path / "config.toml"
    file.write_text("[node]\ndirectory = 'node'\nreserve_mb = 0\n")
    config = load(file)
    site = Site(file, config, LocalQueue.of(config, "worker"), "")
    site.first = site.film("1.2.1")
    claim = site.node.claim()
    assert claim is not None
    path, sha256 = site.node.store(claim, "seg.dcm", b"seg")
    made = StoredObject("seg", "", "1.2", "2.25.1", sha256, path, 3, "demo")
    outcome = Outcome(State.SEGMENTED, finding="pneumothorax", content_sha256="c", model_digest="d", objects=(made,))
    site.node.finish(claim, outcome)
    return site


def test_a_copy_is_restored_and_the_ledger_of_before_is_kept_whole(site: Site, tmp_path: Path) -> None:
    """Its log (WAL) holds its last commits: it is kept with it, and never played over the restored one."""
    copy = tmp_path / "copy.sqlite"
    assert site.says("backup", copy).exit_code == 0
    assert [file.name for file in tmp_path.glob("copy*")] == ["copy.sqlite"], "one file"
    later = site.film("1.2.2")
    log = site.config.ledger_path.with_name("ledger.sqlite-wal")
    assert log.stat().st_size > 0, "as after a kill"
    done = site.says("restore", copy, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert site.jobs() == {site.first}
    kept = Path(told["kept"])
    assert {job.job_id for job in Ledger(kept).jobs()} == {site.first, later}
    assert (told["films"], told["objects"], told["mode"], told["unnamed"]) == ([], [], "running", 1)
    [saved] = Path(told["saved"]).iterdir()
    assert saved.read_bytes() == b"1.2.2"
    assert site.config.ledger_path.stat().st_mode & 0o777 == 0o600
    assert site.says("restore", kept).exit_code == 0, "and back"
    assert site.jobs() == {site.first, later}
    assert not list(site.config.ledger_path.parent.glob("*restoring*"))


def test_what_the_spool_lacks_is_named(site: Site, tmp_path: Path) -> None:
    site.film("1.2.2")
    site.says("drain")
    assert site.says("backup", tmp_path / "copy").exit_code == 0
    shutil.rmtree(site.config.spool_directory / "job")
    job = site.node.ledger.jobs(sop_instance_uid="1.2.2")[0]
    site.node.spool.delete(job.arrival.path)
    done = site.says("restore", tmp_path / "copy")
    assert done.exit_code == 0, done.output
    assert f"1 jobs lack the film in the spool (send the film again, or restore the spool): {job.job_id}" in done.output
    assert f"1 jobs lack an object in the spool (send the film again, or restore the spool): {site.first}" in done.output
    assert "`resume`" in done.output


def test_a_lost_ledger_is_restored(site: Site, tmp_path: Path) -> None:
    assert site.says("backup", tmp_path / "copy").exit_code == 0
    site.node.ledger.store.close()
    for file in site.config.ledger_path.parent.glob("ledger.sqlite*"):
        file.unlink()
    done = site.says("restore", tmp_path / "copy", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["kept"] is None
    assert site.jobs() == {site.first}


@pytest.mark.parametrize("verb", ["run", "receive", "work", "send", "serve"])
def test_nothing_is_restored_while_the_node_runs(verb: str, site: Site, tmp_path: Path) -> None:
    site.says("backup", tmp_path / "copy")
    hold = (
        "import sys; from pathlib import Path; from dicom_node.storage.spool import Spool\n"
        "with Spool(Path(sys.argv[1]), 0).lock(sys.argv[2]): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(site.config.spool_directory), verb]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        later = site.film("1.2.2")
        done = site.says("restore", tmp_path / "copy")
        assert holder.stdin is not None
        holder.stdin.close()
    assert done.exit_code == 1 and f"another `{verb}` runs on this spool" in done.output
    assert site.jobs() == {site.first, later}


def damaged(copy: Path) -> None:
    with copy.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 4)


def cut(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:20_000])


def newer(copy: Path) -> None:
    with sqlite3.connect(copy) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def another_database(copy: Path) -> None:
    copy.unlink()
    with sqlite3.connect(copy) as db:
        db.execute("CREATE TABLE people (name TEXT)")


def empty(copy: Path) -> None:
    copy.write_bytes(b"")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (damaged, "is damaged"),
        (cut, "is damaged"),
        (newer, "schema version"),
        (another_database, "not a ledger"),
        (empty, "not a ledger"),
        (Path.unlink, "no such file"),
    ],
)
def test_a_copy_that_cannot_be_used_changes_nothing(
    how: Callable[[Path], None], why: str, site: Site, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.sqlite"
    site.says("backup", copy)
    how(copy)
    later = site.film("1.2.2")
    done = site.says("restore", copy)
    assert (done.exit_code, done.output.count("\n")) == (4, 1) and why in done.output and str(copy) in done.output
    assert site.jobs() == {site.first, later}
    assert not list(site.config.ledger_path.parent.glob("*restoring*"))


def test_an_older_copy_is_brought_up_to_date(site: Site, tmp_path: Path) -> None:
    from old_ledger import version_1

    copy = tmp_path / "old.sqlite"
    version_1(copy, tmp_path)
    assert site.says("restore", copy).exit_code == 0
    assert Store(site.config.ledger_path).read().execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
    assert sqlite3.connect(copy).execute("PRAGMA user_version").fetchone()[0] == 1, "the copy is as it was"


def test_in_a_folder_the_newest_copies_stay(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    for day in (1, 2, 3):
        (folder / f"ledger-2020-01-0{day}T030000.sqlite").touch()
    (folder / "mine.sqlite").touch()
    assert site.says("backup", folder, "--keep", "2").exit_code == 0
    names = sorted(file.name for file in folder.iterdir())
    assert len(names) == 3 and names[0] == "ledger-2020-01-03T030000.sqlite" and names[2] == "mine.sqlite"
    assert site.says("backup", folder / "mine.sqlite").exit_code == 2
