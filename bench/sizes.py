"""What an installation takes on disk: a venv of its own for the node, and one for node and CPU worker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rows import ROOT, Row, row

LIMITS = {"": ("install: node", 300), "[worker-cpu]": ("install: node and CPU worker", 900)}


def sizes(scratch: Path) -> Iterator[Row]:
    for extra, (name, limit) in LIMITS.items():
        folder = scratch / f"venv{len(extra)}"
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        constraint = ["--constraint", str(ROOT / "deploy" / "constraints.txt")]
        subprocess.run([*install, *constraint, "--editable", f".{extra}"], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        model = sum(file.stat().st_size for file in (ROOT / "segmenter" / "artifacts").rglob("*") if file.is_file())
        yield row(name, (_bytes(folder) + model) / 1e6, "MB", "limit", "lower", limit)


def _bytes(folder: Path) -> int:
    """As the disk gives them out."""
    return sum(file.lstat().st_blocks * 512 for file in folder.rglob("*"))
