"""Films for training, drawn once into a cache of uint8 arrays on the model's grid.

A phantom takes a quarter of a second of a core, a training step wants eight of them: draw once, augment for
ever. A cache is a folder of blocks `SIZE-FIRST-COUNT.npy`, (COUNT, 2, SIZE, SIZE) uint8: image and truth, 255
= pneumothorax.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from segmenter.phantom import Phantom, draw
from segmenter.placement import Placement

BLOCK = 100  # films a file: an interrupted drawing loses at most this many
OVERSIZE = 2  # drawn at twice the grid, so that films shrink on their way to the model as real ones do


def film_shape(seed: int, longer: int) -> tuple[int, int]:
    """(H, W) of a film: mostly portrait, never quite square."""
    ratio = np.random.default_rng([seed, 10_000]).uniform(0.76, 0.98)
    portrait = np.random.default_rng([seed, 10_001]).random() < 0.75
    short = round(longer * ratio)
    return (longer, short) if portrait else (short, longer)


def on_grid(phantom: Phantom, size: int) -> np.ndarray:
    """(2, size, size) uint8: image and truth where the model will see them."""
    placement = Placement.fit(phantom.image.shape, size)
    image = placement.to_model(phantom.image)
    truth = placement.to_model(phantom.truth.astype(np.float32)) > 0.5
    return np.stack([np.round(image.clip(0, 1) * 255).astype(np.uint8), truth.astype(np.uint8) * 255])


def _draw_block(job: tuple[Path, int, int]) -> Path:
    folder, size, first = job
    path = folder / f"{size}-{first}-{BLOCK}.npy"
    if not path.exists():
        cv2.setNumThreads(1)
        films = np.stack([on_grid(draw(s, shape=film_shape(s, OVERSIZE * size)), size) for s in range(first, first + BLOCK)])
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            np.save(file, films)
        temporary.rename(path)
    return path


def fill_cache(folder: Path, size: int, first_seed: int, count: int, processes: int) -> list[Path]:
    """Draw the films of `count` seeds from `first_seed` on, those that are not there yet; the paths of their
    blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder, size, first) for first in range(first_seed, first_seed + count, BLOCK)]
    if all((folder / f"{size}-{first}-{BLOCK}.npy").exists() for _, _, first in jobs) or processes == 1:
        return [_draw_block(job) for job in jobs]
    with get_context("spawn").Pool(processes) as pool:
        return pool.map(_draw_block, jobs, chunksize=1)


def load_films(paths: Iterable[Path]) -> list[np.ndarray]:
    """Memory maps, one (2, S, S) uint8 view a film."""
    return [film for path in paths for film in np.load(path, mmap_mode="r")]
