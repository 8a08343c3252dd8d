"""The films of SIIM-ACR with their masks, as delivered (DICOM tree and csv) or as the usual PNG export.

The csv is `train-rle.csv` (its header has a space before the second name, and " -1" for an empty mask) or
`stage_2_train.csv` (without spaces). The export has `png_images/NAME.png` and `png_masks/NAME.png`; its
`stage_1_train_images.csv` names the ImageId of each picture.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pydicom
from pydicom.errors import InvalidDicomError

from train.data.cases import Case, DataError

UNREADABLE = "?"
CSV_NAMES = ("stage_2_train.csv", "train-rle.csv")  # the second stage corrects the first


@dataclass(frozen=True)
class SourceFilms:
    """The films below a folder. `cases`: in the order of their names; `problems`: by kind, the names of films left out."""

    cases: tuple[Case, ...]
    problems: dict[str, list[str]]
    kind: str  # "SIIM-ACR", "PNG export"


def find_films(root: Path, labels: Path | None = None, patients: Path | None = None) -> SourceFilms:
    """The films below `root`. `labels`: the csv of masks; `patients`: the csv of patients. Raises DataError when there are no
    films, or no labels for any."""
    patient_of = read_patients(patients) if patients else {}
    if (root / "png_images").is_dir():
        return _export(root, patient_of)
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() == ".dcm" and p.is_file())
    labels = labels or _labels(root)
    if not files or labels is None:
        missing = "no *.dcm below it" if not files else f"no {' or '.join(CSV_NAMES)} below it; name one with --csv"
        raise DataError(f"{root}: neither SIIM-ACR as delivered nor its PNG export ({missing})")
    rows = read_rle(labels)
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_name[file.stem].append(file)
    problems = {
        "unlabelled": sorted(by_name.keys() - rows.keys()),
        "without film": sorted(rows.keys() - by_name.keys()),
        "duplicate": [str(p.relative_to(root)) for paths in by_name.values() for p in paths[1:]],
    }
    named = sorted(by_name.keys() & rows.keys())
    if not named:
        raise DataError(f"{labels} labels none of the {len(files)} films below {root}: is it the csv of this data set?")
    # With a map of patients, a film that is not in it has no patient: PatientID of SIIM-ACR is not the patient of NIH.
    cases = tuple(
        Case(name, by_name[name][0], patient_of.get(name, "") if patients else patient_id(by_name[name][0]), rle=rows[name])
        for name in named
    )
    return SourceFilms(cases, problems, "SIIM-ACR")


def read_rle(path: Path) -> dict[str, tuple[str, ...]]:
    """ImageId -> the encoded masks of its rows. Raises DataError for another header."""
    rows: dict[str, list[str]] = defaultdict(list)
    with _opened(path) as file:
        reader = csv.reader(file, skipinitialspace=True)
        header = [name.strip() for name in next(reader, [])]
        if header != ["ImageId", "EncodedPixels"]:
            raise DataError(f"{path}: header {header} instead of ImageId, EncodedPixels")
        for row in reader:
            if len(row) == 2:
                rows[row[0].strip()].append(row[1].strip())
            elif row:
                raise DataError(f"{path}, line {reader.line_num}: {len(row)} columns instead of 2")
    return {name: tuple(texts) for name, texts in rows.items()}


def read_patients(path: Path) -> dict[str, str]:
    """ImageId -> patient, from a csv `Kaggle_ID,NIH_ID` ("00028864_007.png": patient 00028864). Raises DataError."""
    with _opened(path) as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    if not rows or not {"Kaggle_ID", "NIH_ID"} <= rows[0].keys():
        raise DataError(f"{path}: the map of patients has the columns Kaggle_ID and NIH_ID")
    return {row["Kaggle_ID"]: row["NIH_ID"].split("_")[0] for row in rows}


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a csv, also a gzipped one. Raises DataError for a file that is not text."""
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else open(path, newline="") as file:
            yield file
    except (UnicodeDecodeError, gzip.BadGzipFile, csv.Error, EOFError) as error:
        raise DataError(f"{path} cannot be read as a csv ({error})") from error


def patient_id(file: Path) -> str:
    """PatientID of a film, "" when it has none; UNREADABLE for a file that is not a film and will be left out later."""
    try:
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
    except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError):
        return UNREADABLE
    return str(found.get("PatientID", "") or "").strip()


def _labels(root: Path) -> Path | None:
    return next((path for name in CSV_NAMES for path in sorted(root.rglob(name))), None)


def _export(root: Path, patient_of: dict[str, str]) -> SourceFilms:
    images = {p.name: p for p in sorted((root / "png_images").glob("*.png"))}
    masks = {p.name: p for p in sorted((root / "png_masks").glob("*.png"))}
    if not images or not masks:
        raise DataError(f"{root}: png_images and png_masks must both hold *.png with the same names")
    ids = dict(_image_ids(root))
    cases = tuple(
        Case(path.stem, path, patient_of.get(ids.get(name, path.stem), ""), mask=masks[name])
        for name, path in images.items()
        if name in masks
    )
    problems = {"unlabelled": sorted(images.keys() - masks.keys()), "without film": sorted(masks.keys() - images.keys())}
    return SourceFilms(cases, problems, "PNG export")


def _image_ids(root: Path) -> Iterator[tuple[str, str]]:
    """(Name of a picture, ImageId) of the pictures that the export's csv lists."""
    for path in sorted(root.glob("stage_1_*_images.csv")):
        with open(path, newline="") as file:
            for row in csv.DictReader(file, skipinitialspace=True):
                if row.get("new_filename") and row.get("ImageId"):
                    yield row["new_filename"], row["ImageId"]
