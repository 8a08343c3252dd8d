"""The answer for one film as the demo and `segment` report it: a row of report.json, a line of the table, a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from dicom_node.cli import terminal
from dicom_node.cli.options import EXIT_FILM_FAILED
from segmenter.objects.sentences import ENGLISH

_COLOURS = {"pneumothorax": "bold", "none": "green"}  # every other finding is yellow: a person must look


@dataclass(frozen=True)
class WrittenObject:
    """One DICOM object that was made; `path` is absolute."""

    role: str
    sop_class: str
    uid: str
    sha256: str
    path: str
    kind: str  # of `segmenter.objects.kinds.ObjectKind`


@dataclass(frozen=True)
class FilmAnswer:
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
    stored: tuple[WrittenObject, ...]
    sentence: str | None = None
    threshold: float | None = None  # that the probability was compared with
    side: str | None = None  # of the parts that were found, the largest first: "left", "right, left", "image left"
    notes: tuple[str, ...] = ()  # codes of `segmenter.notes`: what was assumed about the film


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|) of two (H, W) masks; 1 when both are empty."""
    total = int(mask.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2.0 * int((mask & truth).sum()) / total


def sha256_of(path: Path) -> str:
    """Of the file's bytes, in hex. Raises OSError."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_values(folder: Path) -> dict[str, Any]:
    """What the report says of the model, from its verified manifest. Raises ArtifactError."""
    from segmenter.model.artifact import load_artifact

    artifact = load_artifact(folder)
    manifest = artifact.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "intended_use": manifest.intended_use,
        "sha256": artifact.sha256,
        "operating_point": manifest.operating_point,
    }


def write_report(out: Path, answers: Sequence[FilmAnswer], model: dict[str, Any]) -> dict[str, Any]:
    """Write report.json into `out`; returns what was written. Raises OSError."""
    report = {"films": [asdict(answer) for answer in answers], "model": model}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return report


def print_table(answers: Sequence[FilmAnswer], out: Path, model: dict[str, Any]) -> None:
    """In 80 columns. `model`: of `model_values`. Below it what was assumed about each film, and why one has no answer."""
    console, made_by = terminal.console(), f"{model['name']} {model['version']}"
    if model["intended_use"] == "demo":
        console.print(f"[bold red]{ENGLISH.demo_notice}[/] (model {escape(made_by)})")
    else:
        console.print(f"{ENGLISH.notice} (model {escape(made_by)})")
    columns = ("film", "finding", "probability", "side", "area", "Dice", "s", "objects")
    table = terminal.table(console, *columns, whole=("probability",), numbers=("Dice", "s"))
    for one in answers:
        colour = {"skipped": "yellow", "failed": "red"}.get(one.outcome, _COLOURS.get(one.finding or "", "yellow"))
        table.add_row(
            escape(Path(one.file).name),
            f"[{colour}]{_said(one)}[/]",
            terminal.probability(one.probability, one.threshold),
            one.side or "",
            terminal.area(one.area_mm2),
            "" if one.dice is None else f"{one.dice:.2f}",
            f"{one.seconds:.1f}",
            " ".join(stored.kind for stored in one.stored) or "-",
        )
    console.print(table)
    for one in answers:
        name = escape(Path(one.file).name)
        if one.sentence:
            console.print(f"{name}: {escape(one.sentence)}", soft_wrap=True)
        for code in one.notes:
            console.print(f"{name}: {terminal.note(code)}", soft_wrap=True)
    console.print(f"pictures, objects (FILM-KIND.dcm) and report.json are in {escape(str(out))}/", soft_wrap=True)


def _said(one: FilmAnswer) -> str:
    if one.outcome == "indeterminate":
        return f"indeterminate: {one.code}"
    return one.finding or one.code or ""


def exit_code(answers: Sequence[FilmAnswer]) -> int:
    """3 when a film failed, else 0: a skipped film is answered."""
    return EXIT_FILM_FAILED if any(one.outcome == "failed" for one in answers) else 0
