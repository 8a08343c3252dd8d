"""What it costs to start."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from apparatus import Row, row, seconds_of


def startup(scratch: Path) -> Iterator[Row]:
    command = [sys.executable, "-m", "dicom_node.cli", "--help"]
    times = [seconds_of(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(7)]
    yield row("startup: segmenter-worker --help", statistics.median(times), "s", "limit", "lower", 0.3)
