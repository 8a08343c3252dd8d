"""A disk of a few MB (tmpfs) that a test fills and makes room on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from programs import skip_or_fail


@dataclass
class SmallDisk:
    folder: Path

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def free(self) -> int:
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Until `leave` bytes are free."""
        with self._ballast.open("ab", 0) as ballast:
            try:
                while (free := self.free()) > leave:
                    ballast.write(b"x" * min(65_536, free - leave))
            except OSError:
                pass
        assert self.free() <= leave

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[SmallDisk]:
    """Mount one over `folder`. Needs root: skip at home, fail in CI."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size_mb}m,mode=0700", "tmpfs", str(folder)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True)
        problem = done.stderr if done.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        skip_or_fail(f"a small disk cannot be mounted (needs root): {problem}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
