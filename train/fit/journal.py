"""The records of a run: metrics.csv and TensorBoard for each epoch, and its environment."""

from __future__ import annotations

import csv
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

METRICS_FILE, ENVIRONMENT_FILE = "metrics.csv", "environment.json"
PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "numpy", "opencv-python-headless", "safetensors", "pydicom")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Python, platform, device, packages, commit, command and time of a run, for environment.json."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} threads",
        "packages": dict(_versions()),
        "commit": commit(),
        "command": " ".join(["python -m train", *sys.argv[1:]]),
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def commit() -> str:
    """The git commit of the running code, with "+changes" when files differ from it; empty without git or outside a
    checkout."""
    return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "--", "..") else "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file in one step: readers see the old one or the new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)


class Journal:
    """metrics.csv and TensorBoard of a run; a resumed run first removes rows after its checkpoint."""

    def __init__(self, run: Path, step: int) -> None:
        self.path = run / METRICS_FILE
        self.rows = [row for row in read_rows(self.path) if int(row["step"]) <= step]
        self._write()
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def epoch(self, row: Mapping[str, float | int | str]) -> None:
        """Add the figures of an epoch; `row` has a "step"."""
        self.rows.append({key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in row.items()})
        self._write()
        for key, value in row.items():
            if key != "step" and not isinstance(value, str):
                self.board.add_scalar(key, value, int(row["step"]))  # type: ignore[no-untyped-call]
        self.board.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the TensorBoard file."""
        self.board.close()  # type: ignore[no-untyped-call]

    def _write(self) -> None:
        names = list(dict.fromkeys(key for row in self.rows for key in row))
        temporary = self.path.with_name(f".{self.path.name}")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        temporary.replace(self.path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; [] when there is none."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def time_left(seconds: float) -> str:
    """Remaining time in words, such as "3 h 05 min left"."""
    minutes = round(seconds / 60)
    return (
        f"{minutes // 60} h {minutes % 60:02} min left"
        if minutes >= 60
        else f"{minutes} min left"
        if minutes
        else "< 1 min left"
    )


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found
