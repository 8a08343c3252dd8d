"""Where the programs of other people lie: on the path, or where Debian keeps servers, which is not on everybody's."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import distribution
from typing import NoReturn


def program(name: str) -> str | None:
    """Its path; a file that is named in full is itself. None: not installed. dcmtk's `storescu` and its like are meant, never
    the scripts of pynetdicom with the same names."""
    if os.path.isabs(name) and os.path.exists(name):
        return name
    path = os.environ.get("PATH", os.defpath)
    if name in {one.name for one in distribution("pynetdicom").entry_points}:
        path = os.pathsep.join(one for one in path.split(os.pathsep) if not _is_pythons(one))
    return shutil.which(name, path=path) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _is_pythons(folder: str) -> bool:
    return os.path.realpath(folder) == os.path.realpath(os.path.dirname(sys.executable))


def needed(name: str, target: str) -> str:
    """For scripts: its path, or the end of the script with the make `target` that installs it."""
    return program(name) or sys.exit(f"{name} is not installed; `make {target}` installs it when it is root or has sudo")


def skip_or_fail(message: str) -> NoReturn:
    """For tests: what a test needs is missing. It is skipped at home and fails in CI."""
    import pytest

    pytest.fail(message) if os.environ.get("CI", "").lower() in ("1", "true", "yes") else pytest.skip(message)
