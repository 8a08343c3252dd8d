"""A drawn film and its truth: the output of the generator, from which the DICOM object is written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Phantom:
    """A synthetic film and its truth."""

    seed: int
    image: np.ndarray  # (H, W) float32 in [0, 1], as displayed: air dark, bone bright (MONOCHROME2)
    truth: np.ndarray  # (H, W) bool, the air between pleural line and chest wall
    spacing_mm: float  # of a pixel, both ways, at the detector
    sites: tuple[str, ...]  # of the pneumothorax, the larger first; empty without
    side: str | None  # "left" or "right" of the PICTURE (the patient's right lung is left of the picture)
    distractors: frozenset[str]  # keys of `draw.DISTRACTORS`

    @property
    def pneumothorax(self) -> bool:
        """Whether a pneumothorax is visible."""
        return bool(self.truth.any())

    @property
    def area_fraction(self) -> float:
        """Its area as a share of the film."""
        return float(self.truth.mean())
