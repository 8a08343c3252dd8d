"""The spool: files that are safe before anybody is told so, under names that are ours alone.

    arrivals/ab/<id>.dcm                   films, as they arrived
    job/<job id>/<owner token>/<name>      objects of a result, one folder per claim
    lock/<verb>                            who runs; keeps a second instance out

A write is: temporary file -> fsync -> rename -> fsync of the folder. Only then does it return. Folders are 0700, files
0600. No name ever comes from a peer.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import secrets
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dicom_node.runtime.config import Config
from dicom_node.runtime.errors import DiskReserve, NodeError, SpoolError

Buffer: TypeAlias = bytes | bytearray | memoryview

_PART = ".part"  # a file that is still being written
_writes = itertools.count()


@dataclass(frozen=True)
class Stored:
    """A file that survives a power cut."""

    path: str  # relative to the spool
    size: int  # bytes of the file
    sha256: str  # hex; of the data, without the head


class Spool:
    """The folder of films and results. `reserve_bytes`: free space that writes never touch."""

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        """Make the folders. Raises SpoolError when that is impossible."""
        self.directory = directory
        self.reserve_bytes = reserve_bytes
        self._durable_shelves: set[str] = set()
        try:
            new = [folder for folder in (directory, *directory.parents) if not folder.exists()]
            for folder in (*reversed(new), directory / "arrivals", directory / "job", directory / "lock"):
                folder.mkdir(mode=0o700, exist_ok=True)
            # Each entry in the folder above: one that a killed predecessor made may not be on disk yet.
            for folder in {directory, directory.parent, *(made.parent for made in new)}:
                sync_folder(folder)
        except OSError as error:
            raise SpoolError(f"{directory}: cannot be made ({error.strerror})") from error

    @classmethod
    def of(cls, config: Config) -> Spool:
        """The spool that a configuration names, with its reserve."""
        return cls(config.spool_directory, config.node.reserve_mb * 1024 * 1024)

    def write(self, data: Buffer | Iterable[Buffer], head: Buffer = b"") -> Stored:
        """Store `head` + `data` as a new film; `head` (our File Meta) is not part of the sha256.

        Raises DiskReserve when free space is under the reserve, SpoolError for every other trouble; nothing is left
        behind then, unless removing it fails too (the reaper comes later).
        """
        name = secrets.token_hex(16)
        path = f"arrivals/{name[:2]}/{name}.dcm"
        self._make_shelf(name[:2])
        try:
            stored = self._write(path, data, head, reserve=self.reserve_bytes)
        except SpoolError:
            _try_unlink(self._inside(path))
            raise
        _let_go(self._inside(stored.path))
        return stored

    def folder_for(self, job_id: str, owner_token: str) -> str:
        """The durable folder for the results of one claim, relative to the spool. Raises SpoolError."""
        folder = self._inside(f"job/{job_id}/{owner_token}")
        try:
            for new in (folder.parent, folder):  # `parents=True` would give the first one another mode
                new.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
            sync_folder(folder.parent.parent)
        except OSError as error:
            raise SpoolError(f"{folder}: cannot be made ({error.strerror})") from error
        return f"job/{job_id}/{owner_token}"

    def write_into(self, folder: str, name: str, data: Buffer | Iterable[Buffer], *, keep_reserve: bool = False) -> Stored:
        """Store one object of a result, as durable as a film. Raises SpoolError; DiskReserve with `keep_reserve`.

        The reserve is there for this: what came in can be answered and sent while nothing new is taken. It is not there for
        another machine, whose token could empty it (`keep_reserve`). Two calls with one name do not disturb each other: a
        worker far away that hears no reply sends the same object again.
        """
        return self._write(f"{folder}/{name}", data, b"", reserve=self.reserve_bytes if keep_reserve else 0)

    def remove_folder(self, job_id: str, owner_token: str) -> None:
        """Remove what a claim left that was given up. Raises OSError."""
        folder = self._inside(f"job/{job_id}/{owner_token}")
        for file in list(folder.glob("*")):
            file.unlink(missing_ok=True)
        _remove_empty(folder, until=self.directory / "job")

    def read(self, path: str) -> bytes:
        """The bytes of a file. Raises OSError (FileNotFoundError when it is gone)."""
        return self._inside(path).read_bytes()

    def delete(self, path: str) -> None:
        """Remove a file; one that is gone already is fine. A claim's folder goes with its last file. Raises OSError."""
        file = self._inside(path)
        file.unlink(missing_ok=True)
        if path.startswith("job/"):
            _remove_empty(file.parent, until=self.directory / "job")

    def reap(self, known: Container[str], older_than_seconds: float = 3600) -> list[str]:
        """Remove files that no ledger row names and that are older than `older_than_seconds`; returns their paths.

        Age is counted from the last write. Read `known` from the ledger after this call was decided on: a file younger
        than the limit is never touched, so a row that comes a moment later is safe.
        """
        oldest = time.time() - older_than_seconds
        reaped = []
        for room in ("arrivals", "job"):
            for folder, folders, names in os.walk(self.directory / room):  # does not mind folders that vanish meanwhile
                if room == "job" and not (folders or names) and _is_old(Path(folder), oldest):
                    _remove_empty(Path(folder), until=self.directory / room)  # of a worker killed before the first object
                for file in (Path(folder, name) for name in names):
                    path = file.relative_to(self.directory).as_posix()
                    if path not in known and _is_old(file, oldest):
                        self.delete(path)
                        reaped.append(path)
        return reaped

    def try_out(self) -> None:
        """Make a folder and a durable file as for a film, and remove both. Raises OSError when a film could not be kept: no
        room, no inodes, no right, a read-only disk."""
        folder = self.directory / "arrivals" / f".tried-{os.getpid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            _write_file(folder / f"{next(_writes)}{_PART}", b"", [b"tried"])
            sync_folder(folder.parent)
        finally:
            for left in folder.iterdir():
                _try_unlink(left)
            folder.rmdir()

    def free_bytes(self) -> int:
        """Bytes that an unprivileged writer could still use. Raises OSError."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize

    @contextmanager
    def lock(self, verb: str) -> Iterator[None]:
        """Be the only `verb` on this spool; the kernel lets go when the process dies. Raises NodeError if there is one."""
        file = os.open(self._inside(f"lock/{verb}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(file, 20).decode("ascii", "replace").strip() or "unknown"
                raise NodeError(
                    f"{self.directory}: another `{verb}` runs on this spool (process {holder}); stop it first, "
                    "or give this one its own node.directory"
                ) from error
            try:
                os.ftruncate(file, 0)
                os.write(file, str(os.getpid()).encode())
            except OSError:
                pass  # a full disk: the number is for people, the lock holds without it
            yield
        finally:
            os.close(file)

    def _make_shelf(self, shelf: str) -> None:
        """A folder of arrivals, durable. One that is there already may be another process's and not yet on disk."""
        if shelf in self._durable_shelves:
            return
        folder = self._inside(f"arrivals/{shelf}")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
        except OSError as error:
            raise SpoolError(f"{folder}: cannot be made ({error.strerror})") from error
        self._durable_shelves.add(shelf)

    def _write(self, path: str, data: Buffer | Iterable[Buffer], head: Buffer, reserve: int) -> Stored:
        target = self._inside(path)
        chunks = [data] if isinstance(data, Buffer) else data
        temporary = target.with_name(f"{target.name}.{os.getpid()}-{next(_writes)}{_PART}")
        try:
            self._check_reserve(len(head) + (len(data) if isinstance(data, Buffer) else 0), reserve)
            size, sha256 = _write_file(temporary, head, chunks)
            os.rename(temporary, target)
            sync_folder(target.parent)
        except OSError as error:
            _try_unlink(temporary)
            raise SpoolError(f"{path}: {error.strerror or type(error).__name__}") from error
        return Stored(path, size, sha256)

    def _check_reserve(self, size: int, reserve: int) -> None:
        free = self.free_bytes()
        if free - size < reserve:
            raise DiskReserve(
                f"{free // 2**20} MiB free, {self.reserve_bytes // 2**20} MiB are kept in reserve (node.reserve_mb): "
                "make room on the disk or purge finished jobs"
            )

    def _inside(self, path: str) -> Path:
        parts = path.split("/")
        if not parts or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise ValueError(f"{path!r} is not a path inside the spool")
        return self.directory.joinpath(*parts)


def is_locked(directory: Path, verb: str) -> bool:
    """Whether somebody is the `verb` on the spool in `directory`. Raises OSError when there is none."""
    with (directory / "lock" / verb).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def sha256_of(data: Buffer) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_file(file: Path, head: Buffer, chunks: Iterable[Buffer]) -> tuple[int, str]:
    """(bytes written, sha256 of the chunks); on disk when it returns."""
    digest = hashlib.sha256()
    size = len(head)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(descriptor, head)
        for chunk in chunks:
            _write_all(descriptor, chunk)
            digest.update(chunk)
            size += len(chunk)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size, digest.hexdigest()


def _write_all(descriptor: int, data: Buffer) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]  # a write may be short, at 2 GiB it always is


def sync_folder(folder: Path) -> None:
    """What was renamed or made in it survives a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _let_go(file: Path) -> None:
    """Give the memory of a film that is on disk back. The film is read once more, from the disk; in memory, film after film
    would push out what is needed more, and a hypervisor that hands out memory page by page takes longer for that than the
    disk for the write."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # it is safe all the same
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _is_old(file: Path, oldest: float) -> bool:
    try:
        return file.stat().st_mtime < oldest
    except FileNotFoundError:
        return False  # its writer was faster


def _try_unlink(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:
        pass  # the disk is in trouble already; the reaper removes it later


def _remove_empty(folder: Path, until: Path) -> None:
    while folder != until:
        try:
            folder.rmdir()
        except OSError:
            return  # not empty
        folder = folder.parent
