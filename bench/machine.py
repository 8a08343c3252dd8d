"""Where and of what something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from rows import ROOT


def machine_and_commit() -> dict[str, str]:
    return {"machine": f"{_cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}", "commit": _commit()}


def _commit() -> str:
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
