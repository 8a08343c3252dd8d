"""A data set of phantoms in the layout of SIIM-ACR: a tree of DICOM films and `train-rle.csv`, so that the whole training runs
end to end without the real data."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, cycle, islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import segmenter
from segmenter.phantom.anatomy import draw_body
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import STREAMS, draw_phantom
from segmenter.phantom.findings import SITES, Lung, draw_pneumothorax
from train.data import rle
from train.data.harder_phantoms import make_harder
from train.data.workers import run_in_processes

FIRST_EXAM_SEED = 6_000_000  # seeds from here on are of the exam; training has seeds below 900,000, validation from there
NOTE = "phantoms.json"  # tells `prepare`, and through it the model card, that the films are synthetic
SQUARE = 0.25  # share of films that are square, as all of SIIM-ACR's are


@dataclass(frozen=True)
class PhantomPlan:
    """The data set that `write_phantoms` draws; phantoms.json holds these fields."""

    first_seed: int
    count: int
    longer_px: int  # the longer side
    harder: float  # share of films that `harder_phantoms` makes harder
    pairs: bool = False  # each seed twice, with and without a pneumothorax: they differ in nothing else
    even_sites: bool = False  # choose seeds with apex, side and base in turns; as drawn, one in ten is at the base


def write_phantoms(plan: PhantomPlan, out: Path, workers: int) -> int:
    """Draw the films, then the csv and the note. Returns the number of films.

    Raises ValueError for seeds of the exam and for an impossible plan, DataError when a worker process dies.
    """
    wanted = planned_films(plan)
    if wanted and max(seed for seed, _ in wanted) >= FIRST_EXAM_SEED:
        raise ValueError(f"seeds from {FIRST_EXAM_SEED} on are the exam's; choose a smaller --first-seed")
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(plan, out, *one) for one in wanted]
    written = map(_write_one, jobs) if workers == 1 else run_in_processes(_write_one, jobs, workers)
    done = tqdm(written, total=plan.count, desc="phantoms", unit="film")
    rows = {name: texts for _, name, texts in sorted(done)}  # an invisible pneumothorax makes both films of a pair one
    with open(out / "train-rle.csv", "w", newline="") as file:
        file.write("ImageId, EncodedPixels\n")
        csv.writer(file, lineterminator="\n").writerows((name, f" {text}") for name, texts in rows.items() for text in texts)
    (out / NOTE).write_text(json.dumps({**plan.__dict__, "generator_sha256": generator_sha256()}, indent=2) + "\n")
    return len(rows)


def generator_sha256() -> str:
    """sha256 of the generator's source files in the order of their names: identifies the code that drew a data set."""
    digest = hashlib.sha256()
    for path in sorted(Path(segmenter.__file__).parent.joinpath("phantom").glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def planned_films(plan: PhantomPlan) -> Sequence[tuple[int, bool | None]]:
    """Seed and whether there is a pneumothorax; None leaves it to the seed. Raises ValueError for even sites without pairs."""
    if plan.even_sites and not plan.pairs:
        raise ValueError("--even-sites chooses the pneumothorax of a pair; add --pairs")
    if not plan.pairs:
        return [(plan.first_seed + i, None) for i in range(plan.count)]
    seeds = seeds_by_site(plan.first_seed) if plan.even_sites else count(plan.first_seed)
    return [(seed, sick) for seed in islice(seeds, -(-plan.count // 2)) for sick in (False, True)][: plan.count]


def seeds_by_site(first_seed: int) -> Iterator[int]:
    """Seeds from the first on whose pneumothorax (its largest region) is at the apex, the side, the base, the apex, ..."""
    following = {site: count(first_seed) for site in SITES}
    for site in cycle(SITES):
        yield next(seed for seed in following[site] if main_site(seed) == site)


@cache
def main_site(seed: int) -> str:
    """The site of the largest region of `draw_phantom(seed, pneumothorax=True)`, without drawing the film."""
    body, air = (np.random.default_rng([seed, STREAMS.index(name)]) for name in ("body", "pneumothorax"))
    of_seed = draw_body(body)
    return draw_pneumothorax(air, {side: Lung(of_seed, side) for side in (-1, 1)}, film_cm2=1_000.0)[0].site


def film_shape(seed: int, longer: int) -> tuple[int, int]:
    """(H, W) of a film, mostly portrait; a quarter is square. `longer`: px of the longer side."""
    rng = np.random.default_rng([seed, 10_000])
    short = longer if rng.random() < SQUARE else round(longer * rng.uniform(0.76, 0.98))
    return (longer, short) if rng.random() < 0.75 else (short, longer)


def _write_one(job: tuple[PhantomPlan, Path, int, bool | None]) -> tuple[int, str, list[str]]:
    """Draw the film of one seed. Returns the seed, the film's name and the rows of its masks, one for each component as in
    SIIM-ACR."""
    plan, out, seed, pneumothorax = job
    cv2.setNumThreads(1)
    phantom = draw_phantom(seed, shape=film_shape(seed, plan.longer_px), pneumothorax=pneumothorax)
    if np.random.default_rng([seed, 10_001]).random() < plan.harder:
        phantom = make_harder(phantom)
    dataset = phantom_dataset(phantom, kind="SC", bits=8, window=False)
    if seed % 4 == 1:
        dataset.PatientID = f"PHANTOM-{seed - 1}"  # some patients come twice, as in life
    folder = out / "dicom-images-train" / dataset.StudyInstanceUID / dataset.SeriesInstanceUID
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.part")  # an invisible pneumothorax makes both films of a pair one file
        dataset.save_as(part, enforce_file_format=True)
        part.rename(path)
    regions, labels = cv2.connectedComponents(phantom.truth.astype(np.uint8))
    return seed, path.stem, [rle.encode(labels == i) for i in range(1, regions)] or [rle.EMPTY]
