"""The answer for one film as the demo and `segment` report it: a row of report.json, a line of the table, a picture."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

EXIT_FILM_FAILED = 3


@dataclass(frozen=True)
class Stored:
    """One DICOM object that was made; `path` is absolute."""

    role: str
    sop_class: str
    uid: str
    sha256: str
    path: str


@dataclass(frozen=True)
class Answer:
    """One film: `dice` against the truth, 0 for a miss and for a false alarm, 1 when both are empty, None without truth."""

    file: str
    truth: str | None
    outcome: str  # done, indeterminate, skipped or failed
    code: str | None
    finding: str | None  # pneumothorax, none or null
    probability: float | None
    area_mm2: float | None
    dice: float | None
    seconds: float
    stored: tuple[Stored, ...]
    sentence: str | None = None


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|) of two (H, W) masks; 1 when both are empty."""
    total = int(mask.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2.0 * int((mask & truth).sum()) / total


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_values(folder: Path) -> dict[str, Any]:
    """What the report says of the model; reads the verified manifest."""
    from segmenter.artifact import load_artifact

    artifact = load_artifact(folder)
    manifest = artifact.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "intended_use": manifest.intended_use,
        "sha256": artifact.sha256,
        "operating_point": manifest.operating_point,
    }


def write_report(out: Path, answers: Sequence[Answer], model: dict[str, Any]) -> dict[str, Any]:
    """report.json in `out`; returns what was written."""
    report = {"films": [asdict(answer) for answer in answers], "model": model}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return report


def print_table(answers: Sequence[Answer], out: Path) -> None:
    table = Table("film", "finding", "probability", "area mm²", "Dice", "seconds", "stored as")
    for one in answers:
        colour = {"skipped": "yellow", "indeterminate": "yellow", "failed": "red"}.get(
            one.outcome, "bold" if one.finding == "pneumothorax" else "green"
        )
        table.add_row(
            Path(one.file).name,
            f"[{colour}]{_said(one)}[/]",
            _number(one.probability, ".2f"),
            _number(one.area_mm2, ".0f"),
            _number(one.dice, ".2f"),
            f"{one.seconds:.1f}",
            ", ".join(Path(stored.path).name for stored in one.stored) or "-",
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for one in answers:
        if one.sentence:
            console.print(f"{Path(one.file).name}: {one.sentence}", highlight=False)
    console.print(f"pictures, objects and report.json are in {out}/", highlight=False)


def _said(one: Answer) -> str:
    if one.outcome == "indeterminate":
        return f"indeterminate: {one.code}"
    return one.finding or one.code or ""


def exit_code(answers: Sequence[Answer]) -> int:
    return EXIT_FILM_FAILED if any(one.outcome == "failed" for one in answers) else 0


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)
