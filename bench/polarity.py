"""How often the polarity of a film is judged rightly and wrongly: phantoms through the whole decoder, under the right
photometric interpretation and under the other one, and pictures of real films (8-bit, lungs dark) as they are and as negatives.

    python bench/polarity.py [--seeds 400] [--first 60000] [--longer-px 320] [--pictures FOLDER ...]

One line of JSON: for "phantoms" and "pictures" the count of each judgement of right films and of negatives, and the names of
the pictures that were not kept as they are (look at them: one may be a negative in truth).
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

from segmenter.film.decode import decode
from segmenter.film.photometric import PolarityCheck, assess_polarity
from segmenter.notes import NoteCode
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.values import Turn

KINDS, PHOTOMETRICS, BITS = ("DX", "CR", "SC"), ("MONOCHROME1", "MONOCHROME2"), (8, 10, 12, 16)
ASPECTS = ((1.0, 0.85), (0.85, 1.0), (1.0, 1.0), (1.0, 0.75))


def phantoms(first: int, count: int, longer_px: int) -> dict[str, Counter[str]]:
    right: Counter[str] = Counter()
    negative: Counter[str] = Counter()
    for seed in range(first, first + count):
        tall, wide = ASPECTS[seed % len(ASPECTS)]
        drawn = draw_phantom(seed, shape=(round(longer_px * tall), round(longer_px * wide)))
        for kind, photometric in itertools.product(KINDS, PHOTOMETRICS):
            dataset = phantom_dataset(
                drawn, kind=kind, photometric=photometric, bits=BITS[seed % len(BITS)], window=seed % 2 == 0
            )
            right[judged(dataset).value] += 1
            other = "MONOCHROME1" if photometric == "MONOCHROME2" else "MONOCHROME2"
            dataset.PhotometricInterpretation, dataset.PresentationLUTShape = other, ""
            negative[judged(dataset).value] += 1
    return {"right": right, "negative": negative}


def judged(dataset: Dataset) -> PolarityCheck:
    decoded = decode(dataset)
    if decoded.indeterminate is not None:
        return PolarityCheck.UNCLEAR
    return PolarityCheck.INVERT if NoteCode.POLARITY_CHANGED in decoded.notes else PolarityCheck.KEEP


def pictures(folders: list[Path]) -> tuple[dict[str, Counter[str]], list[str]]:
    right: Counter[str] = Counter()
    negative: Counter[str] = Counter()
    names = []
    for path in sorted(one for folder in folders for one in folder.iterdir()):
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png") or ".mask" in path.name:
            continue
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
        verdict = assess_polarity(image, None, Turn(), ambiguous=False)
        right[verdict.value] += 1
        negative[assess_polarity(1 - image, None, Turn(), ambiguous=False).value] += 1
        if verdict is not PolarityCheck.KEEP:
            names.append(path.name)
    return {"right": right, "negative": negative}, names


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=400)
    options.add_argument("--first", type=int, default=60000)
    options.add_argument("--longer-px", type=int, default=320)
    options.add_argument("--pictures", type=Path, nargs="*", default=[])
    given = options.parse_args()
    result: dict[str, object] = {"phantoms": phantoms(given.first, given.seeds, given.longer_px)}
    if given.pictures:
        result["pictures"], result["not_kept"] = pictures(given.pictures)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
