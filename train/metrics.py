"""Every figure by a name that can not be mistaken for another.

pooled_dice, pooled_iou    all pixels of all films at 512 x 512 as one vector (the published .8241 /
.7008 are these) kaggle_dice                mean over films, 1 where truth and answer are both empty (the
SIIM-ACR leaderboard) mean_positive_dice         mean over films with pneumothorax on the native matrix, a
miss counts 0 tp_dice                    the same over those that were found auroc, average_precision   of the
image probability sensitivity, specificity   of the answer given at the operating point ece
expected calibration error of the image probability, ten equal bins
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True)
class Counts:
    """Pixels of truth, of the answer, and of both."""

    truth: int
    answer: int
    both: int

    @classmethod
    def of(cls, truth: np.ndarray, answer: np.ndarray) -> Counts:
        """From two boolean arrays of one shape."""
        return cls(int(truth.sum()), int(answer.sum()), int((truth & answer).sum()))

    @property
    def dice(self) -> float:
        """1 when both are empty."""
        return 2 * self.both / (self.truth + self.answer) if self.truth + self.answer else 1.0


@dataclass(frozen=True)
class Scored:
    """One film after the answer was compared with the truth."""

    name: str
    native: Counts
    grid: Counts  # on a grid of 512 x 512
    image_probability: float
    area_fraction: float  # of the truth

    @property
    def positive(self) -> bool:
        return self.native.truth > 0

    @property
    def found(self) -> bool:
        return self.native.answer > 0


def measure(films: Sequence[Scored]) -> dict[str, object]:
    """All figures, and under "by_area" those of each third of the positives by size, with all negatives
    beside it."""
    negatives = [f for f in films if not f.positive]
    positives = sorted((f for f in films if f.positive), key=lambda f: f.area_fraction)
    thirds = np.array_split(np.arange(len(positives)), 3)
    by_area = {
        name: figures([positives[i] for i in third], negatives)
        for name, third in zip(("small", "medium", "large"), thirds, strict=True)
        if len(third)
    }
    return {**figures(positives, negatives), "by_area": by_area}


def figures(positives: Sequence[Scored], negatives: Sequence[Scored]) -> dict[str, float | int | None]:
    """Rounded to four places; None where a figure has nothing to be computed from."""
    films = [*positives, *negatives]
    truth = np.array([f.positive for f in films], bool)
    probability = np.array([f.image_probability for f in films])
    both, area = sum(f.grid.both for f in films), sum(f.grid.truth + f.grid.answer for f in films)
    values = {
        "pooled_dice": 2 * both / area if area else None,
        "pooled_iou": both / (area - both) if area - both else None,
        "kaggle_dice": _mean([f.grid.dice for f in films]),
        "mean_positive_dice": _mean([f.native.dice for f in positives]),
        "tp_dice": _mean([f.native.dice for f in positives if f.found]),
        "auroc": auroc(truth, probability),
        "average_precision": average_precision(truth, probability),
        "sensitivity": _mean([f.found for f in positives]),
        "specificity": _mean([not f.found for f in negatives]),
        "ece": expected_calibration_error(truth, probability),
    }
    rounded = {name: None if value is None else round(float(value), 4) for name, value in values.items()}
    return {"positives": len(positives), "negatives": len(negatives), **rounded}


def auroc(truth: np.ndarray, score: np.ndarray) -> float | None:
    """Probability that a positive scores above a negative, ties half. (N,) bool and (N,) float."""
    n, m = int(truth.sum()), int((~truth).sum())
    if not n or not m:
        return None
    return float((rankdata(score)[truth].sum() - n * (n + 1) / 2) / (n * m))


def average_precision(truth: np.ndarray, score: np.ndarray) -> float | None:
    """Precision averaged over the recall steps, films of equal score taken together."""
    if not truth.any():
        return None
    levels = np.unique(score)[::-1]
    recall = np.array([(truth & (score >= level)).sum() for level in levels]) / truth.sum()
    precision = np.array([truth[score >= level].mean() for level in levels])
    return float((np.diff(recall, prepend=0) * precision).sum())


def expected_calibration_error(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> float | None:
    """Mean distance between promised and actual share of positives, weighted by the films of each bin."""
    if not len(truth):
        return None
    which = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [abs(truth[which == b].mean() - probability[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
    return float(sum(gaps))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
