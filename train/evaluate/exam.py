"""The exam: 200 phantoms that no training has seen, as DICOM objects of many kinds.

`exam.sha256` holds two frozen digests of each film: of the content of the DICOM object (its stored values and the attributes by
which they are decoded), and of the true mask. Every film is checked against them when it is drawn, so figures measured today
and those of a model card are of the same exam.

A mismatch means that the code that draws phantoms has changed, or that this machine's numpy, scipy or OpenCV rounds
differently. Pixels are drawn in floating point and rounded to whole numbers, which removes nearly all such differences, but not
one at the boundary between two numbers. Either way the film is not the one that the model card was measured on.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.phantom.values import Phantom
from train.data.cases import DataError
from train.data.phantoms import FIRST_EXAM_SEED

EXAM: dict[str, Any] = {
    "films": 200,
    "first_seed": FIRST_EXAM_SEED,
    "positives_of_20": 9,
    "longer_side_px": [1500, 3000],
    "ratio": [0.76, 0.98],
    "kinds": ["DX", "DX", "CR", "SC"],
    "bits": [8, 10, 12, 14, 16],
    "low": [0.0, 0.3],  # stored values: the picture fills a part of their range
    "high": [0.6, 1.0],
    "windowed": 0.7,  # share of CR and SC with a window; a DX always has one
}
DIGESTS_FILE = Path(__file__).with_name("exam.sha256")
DIGEST_KEYWORDS = (
    "SOPClassUID", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PresentationLUTShape",
)  # fmt: skip  # in this order, with the pixels, the digest of a film


def exam_sha256() -> str:
    """sha256 of the list of digests, by which a report identifies the exam."""
    return hashlib.sha256(DIGESTS_FILE.read_bytes()).hexdigest()


def exam_film(index: int) -> tuple[Phantom, Dataset]:
    """Film `index` (0 to 199) as phantom, with its truth (H, W) bool on the native matrix, and as the Dataset that a modality
    would send. Raises DataError when its digests differ from the frozen ones."""
    phantom, dataset = draw_exam_film(index)
    changed = [
        what
        for what, found, frozen in zip(("pixels", "truth"), film_sha256(phantom, dataset), frozen_digests()[index], strict=True)
        if found != frozen
    ]
    if changed:
        raise DataError(
            f"film {index} of the exam is not the one that was frozen: its {' and '.join(changed)} differ from "
            f"{DIGESTS_FILE.name}. Undo the change of the code that draws phantoms, or install the versions of numpy, scipy "
            "and OpenCV that deploy/constraints.txt names"
        )
    return phantom, dataset


def film_sha256(phantom: Phantom, dataset: Dataset) -> tuple[str, str]:
    """sha256 of the stored film, and of the truth."""
    read_by = " ".join(f"{keyword}={dataset[keyword].value}" for keyword in DIGEST_KEYWORDS if keyword in dataset)
    film = hashlib.sha256(read_by.encode() + b"\0" + dataset.PixelData)
    return film.hexdigest(), hashlib.sha256(np.packbits(phantom.truth).tobytes()).hexdigest()


@cache
def frozen_digests() -> tuple[tuple[str, str], ...]:
    """The digests of all films as `film_sha256` gives them, by index."""
    rows = [line.split() for line in DIGESTS_FILE.read_text().splitlines() if not line.startswith("#")]
    return tuple((film, truth) for _, film, truth in rows)


def draw_exam_film(index: int) -> tuple[Phantom, Dataset]:
    """The film as the generator draws it today by EXAM, unchecked."""
    rng = np.random.default_rng([EXAM["first_seed"], index])
    longer, ratio = int(rng.integers(*EXAM["longer_side_px"])), rng.uniform(*EXAM["ratio"])
    shape = (longer, round(longer * ratio)) if rng.random() < 0.75 else (round(longer * ratio), longer)
    phantom = draw_phantom(EXAM["first_seed"] + index, shape=shape, pneumothorax=index % 20 < EXAM["positives_of_20"])
    kind: Any = str(rng.choice(EXAM["kinds"]))
    photometric: Any = str(rng.choice(["MONOCHROME1", "MONOCHROME2"]))
    dataset = phantom_dataset(
        phantom,
        kind=kind,
        photometric=photometric,
        bits=int(rng.choice(EXAM["bits"])),
        stored_range=(float(rng.uniform(*EXAM["low"])), float(rng.uniform(*EXAM["high"]))),
        window=bool(rng.random() < EXAM["windowed"]),
    )
    return phantom, dataset
