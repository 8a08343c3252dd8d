"""The house keeps its shape: who may import whom, and what starts without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_import_contracts() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    "module",
    [
        "receive.storage_scp",
        "send.storage_scu",
        "cli.main",
        "cli.supervisor",
        "storage.outbox",
        "cli.tables",
        "cli.check",
        "work.celery_worker",
        "work.job_runner",
        "work.model",
        "api.health",
        "cli.journal",
        "cli.jobs",
        "cli.terminal",
        "cli.conformance.command",
        "cli.conformance.network",
    ],
)
def test_starts_without_torch_and_highdicom(module: str) -> None:
    program = (
        f"import sys, dicom_node.{module}; "
        "heavy = [name for name in ('torch', 'highdicom', 'torchvision', 'scipy') if name in sys.modules]; "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"dicom_node.{module} imports {done.stderr}"


def test_the_core_reads_no_environment_no_toml_and_opens_no_socket() -> None:
    for file in (ROOT / "segmenter").rglob("*.py"):
        text = file.read_text("utf-8")
        for word in ("os.environ", "getenv", "tomllib", "import socket", "import sqlite3", "import celery"):
            assert word not in text, f"{file.name} uses {word}"


def test_files_stay_readable() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for room in ("dicom_node", "segmenter", "train")
        for file in (ROOT / room).rglob("*.py")
        if (lines := len(file.read_text("utf-8").splitlines())) > 400
    }
    assert not long
