"""The exam: 200 phantoms that no training saw, sent as DICOM of many makes. Frozen by hash before the
training began.

`exam.sha256` holds the digest of the generator's source and of this file's EXAM table. When it does not match
any more, the figures in a model card were measured in another exam, and `check_frozen` says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

import segmenter
from segmenter.phantom import Phantom, draw, film

EXAM: dict[str, Any] = {
    "films": 200,
    "first_seed": 6_000_000,  # training draws below 900,000, validation from there
    "positives_of_20": 9,
    "longer_side_px": [1500, 3000],
    "ratio": [0.76, 0.98],
    "kinds": ["DX", "DX", "CR", "SC"],
    "bits": [8, 10, 12, 14, 16],
    "low": [0.0, 0.3],  # stored values: the picture fills a part of their range
    "high": [0.6, 1.0],
    "windowed": 0.7,  # share of CR and SC with a window; a DX always has one
}
FROZEN = Path(__file__).with_name("exam.sha256")


def generator_sha256() -> str:
    """Digest of the source of the phantoms, in the order of the file names."""
    digest = hashlib.sha256()
    for path in sorted(Path(segmenter.__file__).parent.glob("phantom*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def exam_sha256() -> str:
    return hashlib.sha256((generator_sha256() + json.dumps(EXAM, sort_keys=True)).encode()).hexdigest()


def is_frozen() -> bool:
    """Whether this is still the exam that was fixed before the training."""
    return exam_sha256() == FROZEN.read_text().split()[0]


def exam_films(count: int | None = None) -> Iterator[tuple[Phantom, Dataset]]:
    """The films in order, each as phantom (with its truth, native matrix) and as the Dataset a modality would
    send."""
    for i in range(count or EXAM["films"]):
        yield exam_film(i)


def exam_film(index: int) -> tuple[Phantom, Dataset]:
    rng = np.random.default_rng([EXAM["first_seed"], index])
    longer, ratio = int(rng.integers(*EXAM["longer_side_px"])), rng.uniform(*EXAM["ratio"])
    shape = (longer, round(longer * ratio)) if rng.random() < 0.75 else (round(longer * ratio), longer)
    phantom = draw(EXAM["first_seed"] + index, shape=shape, pneumothorax=index % 20 < EXAM["positives_of_20"])
    kind: Any = str(rng.choice(EXAM["kinds"]))
    photometric: Any = str(rng.choice(["MONOCHROME1", "MONOCHROME2"]))
    dataset = film(
        phantom,
        kind=kind,
        photometric=photometric,
        bits=int(rng.choice(EXAM["bits"])),
        stored_range=(float(rng.uniform(*EXAM["low"])), float(rng.uniform(*EXAM["high"]))),
        window=bool(rng.random() < EXAM["windowed"]),
    )
    return phantom, dataset
