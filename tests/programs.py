"""Where the programs of other people lie: on the path, or where Debian keeps servers, which is not on everybody's."""

from __future__ import annotations

import os
import shutil
import sys


def program(name: str) -> str | None:
    """Its path; a file that is named in full is itself. None: not installed."""
    if os.path.isabs(name) and os.path.exists(name):
        return name
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def needed(name: str, target: str) -> str:
    """For scripts: its path, or the end of the script with the make `target` that installs it."""
    return program(name) or sys.exit(f"{name} is not installed; `make {target}` installs it when it is root or has sudo")
