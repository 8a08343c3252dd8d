"""A site's settings of segmentation and objects. `identity.py` defines which of them enter the model identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """Effective segmentation settings of one worker."""

    operating_point: str = ""  # empty: the artifact's default
    device: str = "auto"  # auto, cpu, cuda, cuda:0 ...; does not enter the identity
    engine: str = "auto"  # of `predict.ENGINES`; does not enter the identity: the engines agree
    threads: int = 0  # CPU threads of the forward pass; 0: as many as the machine allows
    min_side_px: int = 256  # smaller films are skipped
    max_pixels: int = 100_000_000  # larger films are skipped before anything is allocated
    min_age_years: float = 0.0  # younger patients' films are skipped, where the age is known; 0: none
    for_processing: Literal["skip", "answer"] = "skip"  # films that are not processed for display
    absurd_fraction: float = 0.4  # a mask larger than this part of the film is refused
    series_number: int = 9100
    plane_orientation: bool = True  # Plane Orientation in the SEG; without it OHIF stays at "Loading SEG"
    language: str = "en"  # of the sentences in our objects, a key of `sentences.WORDS`
    report_negative: bool = True  # a film without pneumothorax gets a negative SR (and capture)
