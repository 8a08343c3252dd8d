"""The spool: files are durable before their arrival is confirmed, under names of our own.

    arrivals/ab/<id>.dcm                   films, as they arrived
    job/<job id>/<owner token>/<name>      objects of a result, one folder per claim
    lock/<verb>                            which processes run; keeps a second instance out

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
class StoredFile:
    """A file that survives a power cut."""

    path: str  # relative to the spool
    size: int  # bytes of the file
    sha256: str  # hex; of the data, without the head


class Spool:
    """The folder of films and results. `reserve_bytes`: free disk space that new films never use."""

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        """Make the folders. Raises SpoolError when that fails."""
        self.directory = directory
        self.reserve_bytes = reserve_bytes
        self._durable_folders: set[str] = set()
        try:
            new = [folder for folder in (directory, *directory.parents) if not folder.exists()]
            for folder in (*reversed(new), directory / "arrivals", directory / "job", directory / "lock"):
                folder.mkdir(mode=0o700, exist_ok=True)
            # Each entry in its parent: one that a killed predecessor made may not be on disk yet.
            for folder in {directory, directory.parent, *(made.parent for made in new)}:
                sync_folder(folder)
        except OSError as error:
            raise SpoolError(f"{directory}: cannot be made ({error.strerror})") from error

    @classmethod
    def of(cls, config: Config) -> Spool:
        """The spool that a configuration names, with its reserve."""
        return cls(config.spool_directory, config.node.reserve_mb * 1024 * 1024)

    def write(self, data: Buffer | Iterable[Buffer], head: Buffer = b"") -> StoredFile:
        """Store `head` + `data` as a new film; `head` (our File Meta) is not part of the sha256.

        Raises DiskReserve when free space is below the reserve, SpoolError for every other failure; nothing is left behind
        then, unless its removal fails too (`remove_orphans` removes it later).
        """
        name = secrets.token_hex(16)
        path = f"arrivals/{name[:2]}/{name}.dcm"
        self._make_arrival_folder(name[:2])
        try:
            stored = self._write(path, data, head, reserve=self.reserve_bytes)
        except SpoolError:
            _try_unlink(self._inside(path))
            raise
        _drop_page_cache(self._inside(stored.path))
        return stored

    def folder_for(self, job_id: str, owner_token: str) -> str:
        """The durable folder for the results of one claim, relative to the spool. Raises SpoolError."""
        folder = self._inside(f"job/{job_id}/{owner_token}")
        try:
            for new in (folder.parent, folder):  # `parents=True` would give the parent another mode
                new.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
            sync_folder(folder.parent.parent)
        except OSError as error:
            raise SpoolError(f"{folder}: cannot be made ({error.strerror})") from error
        return f"job/{job_id}/{owner_token}"

    def write_into(self, folder: str, name: str, data: Buffer | Iterable[Buffer], *, keep_reserve: bool = False) -> StoredFile:
        """Store one object of a result, as durable as a film. Raises SpoolError; DiskReserve with `keep_reserve`.

        The reserve is meant for results: films that were received can be segmented and sent while new ones are refused. It is
        not meant for another machine, whose token could exhaust it (`keep_reserve`). Two calls with one name do not interfere:
        a remote worker that gets no reply sends the same object again.
        """
        return self._write(f"{folder}/{name}", data, b"", reserve=self.reserve_bytes if keep_reserve else 0)

    def remove_folder(self, job_id: str, owner_token: str) -> None:
        """Remove the objects of a claim that was given up. Raises OSError."""
        folder = self._inside(f"job/{job_id}/{owner_token}")
        for file in list(folder.glob("*")):
            file.unlink(missing_ok=True)
        _remove_empty(folder, until=self.directory / "job")

    def read(self, path: str) -> bytes:
        """The bytes of a file. Raises OSError (FileNotFoundError when it is gone)."""
        return self._inside(path).read_bytes()

    def delete(self, path: str) -> None:
        """Remove a file, if it is there. A claim's folder is removed with its last file. Raises OSError."""
        file = self._inside(path)
        file.unlink(missing_ok=True)
        if path.startswith("job/"):
            _remove_empty(file.parent, until=self.directory / "job")

    def remove_orphans(self, known: Container[str], older_than_seconds: float = 3600) -> list[str]:
        """Remove the files that no row of the ledger names (`known`: `Ledger.paths`) and that are older than
        `older_than_seconds` since their last write; their paths. Raises OSError.

        Read `known` just before the call. A younger file is never removed: its row may follow in a moment.
        """
        oldest = time.time() - older_than_seconds
        removed = []
        for top in ("arrivals", "job"):
            for folder, folders, names in os.walk(self.directory / top):  # tolerates folders that vanish meanwhile
                if top == "job" and not (folders or names) and _is_old(Path(folder), oldest):
                    _remove_empty(Path(folder), until=self.directory / top)  # of a worker killed before the first object
                for file in (Path(folder, name) for name in names):
                    path = file.relative_to(self.directory).as_posix()
                    if path not in known and _is_old(file, oldest):
                        self.delete(path)
                        removed.append(path)
        return removed

    def try_out(self) -> None:
        """Make a folder and a durable file as for a film, and remove both. Raises OSError when a film could not be stored: no
        space, no inodes, no permission, a read-only disk."""
        folder = self.directory / "arrivals" / f".probe-{os.getpid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            _write_file(folder / f"{next(_writes)}{_PART}", b"", [b"probe"])
            sync_folder(folder.parent)
        finally:
            for left in folder.iterdir():
                _try_unlink(left)
            folder.rmdir()

    def free_bytes(self) -> int:
        """Free bytes for an unprivileged writer (statvfs(3)). Raises OSError."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize

    @contextmanager
    def lock(self, verb: str) -> Iterator[None]:
        """Be the only `verb` on this spool; the kernel releases the lock when the process dies. Raises NodeError if taken."""
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
                pass  # a full disk: the pid is for people, the lock holds without it
            yield
        finally:
            os.close(file)

    def _make_arrival_folder(self, name: str) -> None:
        """A durable folder for arrivals. An existing one may be another process's and not yet on disk."""
        if name in self._durable_folders:
            return
        folder = self._inside(f"arrivals/{name}")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
        except OSError as error:
            raise SpoolError(f"{folder}: cannot be made ({error.strerror})") from error
        self._durable_folders.add(name)

    def _write(self, path: str, data: Buffer | Iterable[Buffer], head: Buffer, reserve: int) -> StoredFile:
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
        return StoredFile(path, size, sha256)

    def _check_reserve(self, size: int, reserve: int) -> None:
        free = self.free_bytes()
        if free - size < reserve:
            raise DiskReserve(
                f"{free // 2**20} MiB free, {self.reserve_bytes // 2**20} MiB are reserved (node.reserve_mb): "
                "free disk space or purge finished jobs"
            )

    def _inside(self, path: str) -> Path:
        parts = path.split("/")
        if not parts or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise ValueError(f"{path!r} is not a path inside the spool")
        return self.directory.joinpath(*parts)


def is_locked(directory: Path, verb: str) -> bool:
    """Whether a process holds the lock of `verb` on the spool in `directory`. Raises OSError when there is no such spool."""
    with (directory / "lock" / verb).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def sha256_of(data: Buffer) -> str:
    """Hexadecimal."""
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
        view = view[os.write(descriptor, view) :]  # a write may be short; at 2 GiB it always is


def sync_folder(folder: Path) -> None:
    """Make renames and new files in `folder` survive a power cut (fsync(2)). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drop_page_cache(file: Path) -> None:
    """Drop a stored film from the page cache (posix_fadvise(2)). It is read only once more, from the disk; in memory, film
    after film would evict pages that are needed more, and a hypervisor that grants memory page by page takes longer for that
    than the disk for the write."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # it is stored all the same
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
        return False  # its writer renamed or removed it


def _try_unlink(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:
        pass  # the disk fails already; `remove_orphans` removes the file later


def _remove_empty(folder: Path, until: Path) -> None:
    while folder != until:
        try:
            folder.rmdir()
        except OSError:
            return  # not empty
        folder = folder.parent
