"""Raw films -> uint8 arrays on the model's grid, an index, folds, and a report of the films that were left out.

Each film passes the same steps as in the hospital: gate, decoding, placement. An interrupted call is continued by the next one,
with the films that are not yet in `progress.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from segmenter.errors import Refused
from segmenter.film.decode import decode
from segmenter.film.gate import SkippedFilm, gate
from segmenter.film.header import for_reading, without_warnings
from segmenter.model.placement import Placement
from segmenter.settings import Settings
from train.data.cases import Case, DataError, FilmError
from train.data.dataset import (
    DATASET_FILE,
    INDEX_FILE,
    REPORT_FILE,
    SCHEMA,
    FilmRow,
    image_file,
    mask_file,
    row_sha256,
    write_index,
)
from train.data.folds import assign_folds, folds_sha256, strata
from train.data.phantoms import NOTE
from train.data.siim import SourceFilms, find_films
from train.data.workers import run_in_processes

REPEAT_PATIENTS_FROM = 200  # films: among so many, some patient has two
PROGRESS_FILE = "progress.jsonl"


@dataclass(frozen=True)
class PreparePlan:
    """What `prepare` is asked to do: raw films below `source`, the prepared set into `out`, arrays of `sizes` px."""

    source: Path
    out: Path
    labels: Path | None = None
    patients: Path | None = None
    sizes: tuple[int, ...] = (1024, 512)
    folds: int = 5
    seed: int = 1
    split: str = "patient"  # or "image": as the published recipe did, patients in several folds
    workers: int = 1


def prepare(plan: PreparePlan) -> dict[str, Any]:
    """Prepare a data set, or continue an interrupted call. Returns the content of dataset.json. Raises DataError when no film
    can be used, or `out` holds another data set."""
    found = find_films(plan.source, plan.labels, plan.patients)
    _refuse_unknown_patients(found, plan)
    plan.out.mkdir(parents=True, exist_ok=True)
    done = _resumed(plan, found)
    _allocate(plan, len(found.cases))
    missing = [(i, case) for i, case in enumerate(found.cases) if case.name not in done]
    with open(plan.out / PROGRESS_FILE, "a") as file:
        for record in tqdm(_prepared(plan, missing), total=len(missing), desc="prepare", unit="film"):
            file.write(json.dumps(record) + "\n")
            file.flush()
            done[record["name"]] = record
    return _write_prepared_set(plan, found, [done[case.name] for case in found.cases])


def _refuse_unknown_patients(found: SourceFilms, plan: PreparePlan) -> None:
    unknown = sum(not case.patient for case in found.cases)
    if plan.split == "patient" and unknown:
        raise DataError(
            f"{unknown} of {len(found.cases)} films have no patient, so folds by patient cannot be made; give the map of "
            "SIIM-ACR ids to NIH patients with --patients, or accept leaking patients with --split image"
        )
    patients, films = len({case.patient for case in found.cases}), len(found.cases)
    by_patient_id = plan.split == "patient" and plan.patients is None and found.kind == "SIIM-ACR"
    if by_patient_id and patients == films and films >= REPEAT_PATIENTS_FROM:
        raise DataError(
            f"each of the {len(found.cases)} films has a PatientID of its own, as in SIIM-ACR, where that is not the patient: "
            "give the map of ids to NIH patients with --patients; or, when they are as many patients, --split image"
        )


def _resumed(plan: PreparePlan, found: SourceFilms) -> dict[str, dict[str, Any]]:
    """Records of the films that are done; films that could not be used are tried again. The first line of the file identifies
    films, masks and sizes."""
    labels = hashlib.sha256("\n".join(case.name + case.label_fingerprint for case in found.cases).encode()).hexdigest()
    work = {"work": {"labels": labels, "source": str(plan.source.resolve()), "sizes": list(plan.sizes)}}
    path = plan.out / PROGRESS_FILE
    if not path.exists():
        path.write_text(json.dumps(work) + "\n")
        return {}
    whole = path.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]  # a kill may have cut the last line short
    if kept != whole:
        path.write_bytes(kept)
    lines = kept.decode().splitlines()
    if not lines or json.loads(lines[0]) != work:
        raise DataError(f"{plan.out} was begun from other films, masks or sizes; choose another --out, or remove it")
    return {record["name"]: record for record in map(json.loads, lines[1:]) if "problem" not in record}


def _allocate(plan: PreparePlan, count: int) -> None:
    """Create the arrays. Raises DataError when the disk cannot hold them: they are sparse at first, and a worker process that
    runs out of disk space later is killed by a signal without a message."""
    there = sum(path.stat().st_blocks * 512 for path in plan.out.glob("*.npy"))
    needed = sum(count * size * size * 9 // 8 for size in plan.sizes) - there
    if (free := shutil.disk_usage(plan.out).free) < needed:
        raise DataError(f"{plan.out} needs {needed / 1e9:.1f} GB more and has {free / 1e9:.1f} GB: make room, or fewer --sizes")
    for size in plan.sizes:
        for path, shape in (
            (image_file(plan.out, size), (count, size, size)),
            (mask_file(plan.out, size), (count, size, size // 8)),
        ):
            if not path.exists():
                np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush()


def _prepared(plan: PreparePlan, cases: list[tuple[int, Case]]) -> Iterator[dict[str, Any]]:
    jobs = [(plan.out, plan.sizes, i, case) for i, case in cases]
    if plan.workers == 1 or len(jobs) < 2:
        yield from map(_prepare_one, jobs)
        return
    yield from run_in_processes(_prepare_one, jobs, plan.workers)


def _prepare_one(job: tuple[Path, tuple[int, ...], int, Case]) -> dict[str, Any]:
    """Write one film into its row of the arrays. Returns its record: the fields of the index, or `problem` and `sentence`."""
    out, sizes, row, case = job
    cv2.setNumThreads(1)
    try:
        with without_warnings():
            return {"name": case.name, "row": row, **_film(out, sizes, row, case)}
    except FilmError as error:
        problem, sentence = error.kind, str(error)
    except SkippedFilm as error:
        problem, sentence = "not ours", f"{error.skip.code}: {error.skip.sentence}"
    except Refused as error:
        problem, sentence = "unreadable", f"{error.code}: {error.sentence}"
    return {"name": case.name, "problem": problem, "sentence": sentence}


def _film(out: Path, sizes: tuple[int, ...], row: int, case: Case) -> dict[str, Any]:
    dataset = for_reading(case.dataset())
    if skip := gate(dataset, Settings()):
        raise FilmError("not ours", f"{skip.code}: {skip.sentence}")
    radiograph = decode(dataset)
    shape = radiograph.image.shape
    truth = case.truth(shape)  # type: ignore[arg-type]
    parts = []
    for size in sizes:
        placement = Placement.fit(shape, size, radiograph.turn, radiograph.aspect)  # type: ignore[arg-type]
        image = np.round(placement.to_model(radiograph.image).clip(0, 1) * 255).astype(np.uint8)
        mask = np.packbits(placement.to_model(truth.astype(np.float32)) > 0.5, axis=1)
        for path, part in ((image_file(out, size), image), (mask_file(out, size), mask)):
            np.load(path, mmap_mode="r+")[row] = part
            parts.append(part)
    spacing = radiograph.spacing
    return {
        "content": radiograph.content_sha256,
        "area_fraction": float(truth.mean()),
        "height": shape[0],
        "width": shape[1],
        "row_mm": spacing.row_mm if spacing else 0.0,
        "column_mm": spacing.column_mm if spacing else 0.0,
        "sha256": row_sha256(parts),
    }


def _write_prepared_set(plan: PreparePlan, found: SourceFilms, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Write index, folds and report from the records, in the order of the names. Returns the content of dataset.json."""
    cases = {case.name: case for case in found.cases}
    report: dict[str, list[str]] = {kind: list(names) for kind, names in found.problems.items()}
    first: dict[str, str] = {}
    good = []
    for record in records:
        name = record["name"]
        if "problem" in record:
            report.setdefault(record["problem"], []).append(f"{name}: {record['sentence']}")
        elif (twin := first.setdefault(record["content"], name)) != name:
            report.setdefault("duplicate", []).append(f"{name}: the same pixels as {twin}")
        else:
            good.append(record)
    if not good:
        raise DataError(f"none of the {len(records)} films of {plan.source} can be used; see {_write_report(plan, report)}")
    kinds = strata([r["area_fraction"] for r in good])
    groups = [cases[r["name"]].patient if plan.split == "patient" else r["name"] for r in good]
    if len(set(groups)) < plan.folds:
        raise DataError(f"{len(set(groups))} {plan.split}s cannot fill {plan.folds} folds; choose fewer with --folds")
    fold_of = assign_folds(groups, kinds, plan.folds, plan.seed)
    index = [
        FilmRow(
            **{k: v for k, v in record.items() if k != "content"},
            patient=cases[record["name"]].patient,
            site=cases[record["name"]].site,
            fold=fold_of[group],
            stratum=kind,
            path=str(cases[record["name"]].image.relative_to(plan.source)),
        )
        for record, kind, group in zip(good, kinds, groups, strict=True)
    ]
    _write_report(plan, report)
    note = plan.source / NOTE
    about = {
        "schema": SCHEMA,
        "kind": "phantoms" if note.exists() else found.kind,
        "phantoms": json.loads(note.read_text()) if note.exists() else None,
        "source": str(plan.source.resolve()),
        "labels": str(plan.labels.resolve()) if plan.labels else "",
        "patients_map": str(plan.patients.resolve()) if plan.patients else "",
        "films": len(index),
        "patients": len({row.patient for row in index}),
        "strata": dict(Counter(kinds)),
        "left_out": {kind: len(names) for kind, names in report.items()},
        "sizes": list(plan.sizes),
        "folds": plan.folds,
        "films_of_fold": [sum(row.fold == k for row in index) for k in range(plan.folds)],
        "split": plan.split,
        "seed": plan.seed,
        "folds_sha256": folds_sha256(fold_of),
        "index_sha256": write_index(plan.out / INDEX_FILE, index),
    }
    (plan.out / DATASET_FILE).write_text(json.dumps(about, indent=2) + "\n")
    return about


def _write_report(plan: PreparePlan, report: dict[str, list[str]]) -> Path:
    path = plan.out / REPORT_FILE
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path
