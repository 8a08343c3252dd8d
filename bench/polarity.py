"""How often bright lungs are suspected rightly and wrongly: phantoms through the whole decoder, under the right photometric
interpretation and under the other one, and pictures of real films (8-bit, lungs dark) as they are and as negatives.

    python bench/polarity.py [--seeds 400] [--first 60000] [--longer-px 320] [--pictures FOLDER]

One line of JSON: counts of {"films", "false_alarms", "misses"} for "phantoms" and "pictures", and the names of pictures that
were suspected (look at them: one may be a negative in truth).
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset

from segmenter.decode import decode
from segmenter.notes import NoteCode
from segmenter.phantom import draw, film
from segmenter.polarity import looks_inverted

KINDS, PHOTOMETRICS, BITS = ("DX", "CR", "SC"), ("MONOCHROME1", "MONOCHROME2"), (8, 10, 12, 16)
ASPECTS = ((1.0, 0.85), (0.85, 1.0), (1.0, 1.0), (1.0, 0.75))


def phantoms(first: int, count: int, longer_px: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in range(first, first + count):
        tall, wide = ASPECTS[seed % len(ASPECTS)]
        drawn = draw(seed, shape=(round(longer_px * tall), round(longer_px * wide)))
        for kind, photometric in itertools.product(KINDS, PHOTOMETRICS):
            dataset = film(drawn, kind=kind, photometric=photometric, bits=BITS[seed % len(BITS)], window=seed % 2 == 0)
            found["films"] += 1
            found["false_alarms"] += suspected(dataset)
            other = "MONOCHROME1" if photometric == "MONOCHROME2" else "MONOCHROME2"
            dataset.PhotometricInterpretation, dataset.PresentationLUTShape = other, ""
            found["misses"] += not suspected(dataset)
    return found


def suspected(dataset: Dataset) -> bool:
    return NoteCode.POLARITY_SUSPECT in decode(dataset).notes


def pictures(folder: Path) -> tuple[Counter[str], list[str]]:
    found: Counter[str] = Counter()
    names = []
    for path in sorted(one for one in folder.iterdir() if one.suffix.lower() in (".jpg", ".jpeg", ".png")):
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
        found["films"] += 1
        found["misses"] += not looks_inverted(1 - image)
        if looks_inverted(image):
            names.append(path.name)
    found["false_alarms"] = len(names)
    return found, names


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=400)
    options.add_argument("--first", type=int, default=60000)
    options.add_argument("--longer-px", type=int, default=320)
    options.add_argument("--pictures", type=Path)
    given = options.parse_args()
    result: dict[str, object] = {"phantoms": phantoms(given.first, given.seeds, given.longer_px)}
    if given.pictures:
        result["pictures"], result["suspected"] = pictures(given.pictures)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
