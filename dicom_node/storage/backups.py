"""Backups of the ledger, and their restoration.

A backup is one file, complete or not there. Restoring never destroys: the former ledger stays beside the restored one, and
films that arrived after the backup get a second name before retention removes them as files without a row.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dicom_node.runtime.config import Config
from dicom_node.runtime.errors import ConfigError, LedgerUnusable, Missing
from dicom_node.storage.database import SCHEMA_VERSION, Store
from dicom_node.storage.instance_lock import VERBS
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.spool import Spool, sync_folder

_NAME = "ledger-%Y-%m-%dT%H%M%S.sqlite"
_NAMED = "ledger-????-??-??T??????.sqlite"


@dataclass(frozen=True)
class Restored:
    """`kept`: the former ledger, None when there was none. `films`, `objects`: jobs whose film, or one of whose objects, is not
    in the spool. `unnamed`: films in the spool that the ledger does not know; `saved`: the folder with their second names."""

    kept: Path | None
    films: tuple[str, ...]
    objects: tuple[str, ...]
    unnamed: int
    saved: Path | None
    mode: str


def back_up(store: Store, target: Path, keep: int | None = None) -> Path:
    """A consistent copy while the node runs: the file `target`, or, when that is a folder, a file in it that is named by the
    time; the `keep` newest of these stay. Raises ConfigError when the file exists, OSError, sqlite3.Error, LedgerUnusable."""
    file = target / time.strftime(_NAME) if target.is_dir() else target
    if file.exists():
        raise ConfigError(f"{file} exists; name a new file")
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)  # left by a backup that was killed
    try:
        store.backup(part)
        _one_sound_file(part, file)
        _synced_rename(part, file)
    except OSError as error:
        error.filename = str(file)  # not its temporary name
        raise
    finally:
        part.unlink(missing_ok=True)
    if target.is_dir() and keep is not None:
        for old in sorted(target.glob(_NAMED))[:-keep]:
            old.unlink()
    return file


def restore(config: Config, file: Path) -> Restored:
    """Replace the ledger by a backup. Raises NodeError while a process of the node runs, Missing when there is no such file,
    LedgerUnusable when it is damaged, of a newer program, or not a ledger; nothing is changed then."""
    if not file.is_file():
        raise Missing(f"{file}: no such file; `backup FILE` makes one")
    spool, ledger = Spool.of(config), config.ledger_path
    with contextlib.ExitStack() as held:
        for verb in ("run", *VERBS):
            held.enter_context(spool.lock(verb))
        fresh = ledger.with_name(f"{ledger.name}.restoring")
        try:
            _prepare(file, fresh)
            stamp = f"{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() // 1_000_000 % 1000:03}"
            kept = _set_aside(ledger, ledger.with_name(f"{ledger.name}.before-{stamp}"))
            _synced_rename(fresh, ledger)
        finally:
            for left in _with_wal(fresh):
                left.unlink(missing_ok=True)
        return _compared(Ledger(ledger), spool, kept, config.node.directory / f"films-without-job-{stamp}")


def _prepare(file: Path, fresh: Path) -> None:
    """A sound copy of `file` in the current schema."""
    for source, target in zip(_with_wal(file), _with_wal(fresh), strict=True):
        target.unlink(missing_ok=True)
        if source.is_file():  # a WAL beside a copy that was made by hand belongs to it
            shutil.copyfile(source, target)
            target.chmod(0o600)
    _one_sound_file(fresh, file)
    Store(fresh).close()  # upgrades an older schema
    _one_sound_file(fresh, file)


def _one_sound_file(copy: Path, named: Path) -> None:
    """Merge its WAL and check all of it. Raises LedgerUnusable with the name `named`."""
    problem = None
    try:
        with contextlib.closing(sqlite3.connect(copy)) as db:
            db.execute("PRAGMA journal_mode = DELETE")
            found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
            version = db.execute("PRAGMA user_version").fetchone()[0]
            is_ledger = db.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('jobs', 'deliveries')").fetchone()[0] == 2
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # a full disk, for example
        problem = f"is damaged ({error})"
    else:
        if found != "ok":
            problem = f"is damaged ({found.splitlines()[-1]})"
        elif not is_ledger:
            problem = "is not a ledger of this program"
        elif version > SCHEMA_VERSION:
            problem = (
                f"has schema version {version}, this program knows {SCHEMA_VERSION}: restore it with the program that wrote it"
            )
    if problem:
        raise LedgerUnusable(f"{named}: {problem}; nothing was changed")


def _set_aside(ledger: Path, kept: Path) -> Path | None:
    """Give the current ledger a second name, its WAL too. The WAL is removed under the first name before the restored file gets
    that name: SQLite would replay it into the restored one."""
    names = [(old, new) for old, new in zip(_with_wal(ledger), _with_wal(kept), strict=True) if old.exists()]
    for old, new in names:
        os.link(old, new)
    sync_folder(ledger.parent)
    for name in ("-wal", "-shm"):
        ledger.with_name(ledger.name + name).unlink(missing_ok=True)
    return kept if names else None


def _with_wal(file: Path) -> Iterator[Path]:
    yield file
    yield file.with_name(f"{file.name}-wal")


def _synced_rename(old: Path, new: Path) -> None:
    descriptor = os.open(old, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(old, new)
    sync_folder(new.parent)


def _compared(ledger: Ledger, spool: Spool, kept: Path | None, aside: Path) -> Restored:
    """What is missing in the ledger or in the spool."""
    db, folder = ledger.store.read(), spool.directory
    films = db.execute("SELECT id, path FROM jobs WHERE path IS NOT NULL ORDER BY received_at")
    objects = db.execute(
        "SELECT job_id, path FROM objects JOIN answers ON answers.id = answer_id WHERE path IS NOT NULL ORDER BY objects.id"
    )
    known = ledger.paths()
    unnamed = [file for file in (folder / "arrivals").rglob("*.dcm") if file.relative_to(folder).as_posix() not in known]
    if unnamed:
        aside.mkdir(mode=0o700)
        for film in unnamed:
            os.link(film, aside / film.name)
    restored = Restored(
        kept=kept,
        films=tuple(job for job, path in films if not (folder / path).is_file()),
        objects=tuple(dict.fromkeys(job for job, path in objects if not (folder / path).is_file())),
        unnamed=len(unnamed),
        saved=aside if unnamed else None,
        mode=ledger.mode(),
    )
    ledger.store.close()
    return restored
