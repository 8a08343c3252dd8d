"""The packages keep their shape: who may import whom, and what starts without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_import_contracts() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


LIGHT = (
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
)


def test_they_start_without_torch_and_highdicom() -> None:
    """All in one process: what none of them imports after all the others, it does not import alone."""
    program = (
        "import importlib, sys\n"
        f"for module in {LIGHT!r}:\n"
        "    importlib.import_module(f'dicom_node.{module}')\n"
        "    heavy = [name for name in ('torch', 'highdicom', 'torchvision', 'scipy') if name in sys.modules]\n"
        "    if heavy: sys.exit(f'dicom_node.{module} imports {heavy}')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
