"""All figures, each with an unambiguous name.

Of pixels, all films at 512 x 512 as one vector (the published .8241 / .7008 are these, of positive films only):

- ``pooled_dice``, ``pooled_iou``
- ``pooled_precision``  share of the predicted pixels that are true
- ``pooled_recall``     share of the true pixels that are predicted

Of films, each film weighing the same:

- ``kaggle_dice``         mean Dice at 512 x 512, 1 where truth and answer are both empty (SIIM-ACR's leaderboard)
- ``mean_positive_dice``  mean native Dice of the films with pneumothorax; a miss counts 0
- ``tp_dice``             the same over those with any predicted pixel, wherever it is
- ``sensitivity``, ``specificity``  at the operating point: positive means any predicted pixel
- ``auroc``, ``average_precision``  of the image probability, whatever the operating point
- ``ece``                 expected calibration error of the image probability, ten equal bins
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

BINS = 10


@dataclass(frozen=True)
class Counts:
    """Number of pixels of the true mask, of the predicted mask (`answer`), and of both."""

    truth: int
    answer: int
    both: int

    @classmethod
    def of(cls, truth: NDArray[np.bool_], answer: NDArray[np.bool_]) -> Counts:
        """From two boolean arrays of one shape."""
        return cls(int(truth.sum()), int(answer.sum()), int((truth & answer).sum()))

    @property
    def dice(self) -> float:
        """Dice, [0, 1]; 1 when both masks are empty."""
        return 2 * self.both / (self.truth + self.answer) if self.truth + self.answer else 1.0


@dataclass(frozen=True)
class ScoredFilm:
    """One film whose answer was compared with the truth."""

    name: str
    patient: str  # the same for all films of a person, at every site: the intervals draw whole patients
    site: str
    native: Counts
    grid: Counts  # on a grid of 512 x 512
    image_probability: float  # [0, 1]
    area_fraction: float  # of the truth, of the film: [0, 1]

    @property
    def positive(self) -> bool:
        """Whether the film shows a pneumothorax."""
        return self.native.truth > 0

    @property
    def called_positive(self) -> bool:
        """Whether any pixel was predicted."""
        return self.native.answer > 0


@dataclass(frozen=True)
class Table:
    """N films as columns, from which figures are computed a thousand times for the bootstrap."""

    positive: NDArray[np.bool_]  # (N,)
    called_positive: NDArray[np.bool_]  # (N,)
    probability: NDArray[np.float64]  # (N,) in [0, 1]
    native_dice: NDArray[np.float64]  # (N,)
    grid_dice: NDArray[np.float64]  # (N,)
    grid: NDArray[np.int64]  # (N, 3) px of truth, answer, both

    @classmethod
    def of(cls, films: Sequence[ScoredFilm]) -> Table:
        """The table of these films, in their order."""
        return cls(
            np.array([f.positive for f in films], bool),
            np.array([f.called_positive for f in films], bool),
            np.array([f.image_probability for f in films], float),
            np.array([f.native.dice for f in films], float),
            np.array([f.grid.dice for f in films], float),
            np.array([(f.grid.truth, f.grid.answer, f.grid.both) for f in films], np.int64).reshape(-1, 3),
        )

    def take(self, index: NDArray[np.intp]) -> Table:
        """The films at `index` (M,), with repetitions."""
        return Table(
            self.positive[index],
            self.called_positive[index],
            self.probability[index],
            self.native_dice[index],
            self.grid_dice[index],
            self.grid[index],
        )


def measure(films: Sequence[ScoredFilm]) -> dict[str, object]:
    """All figures; under "by_area" those of each third of the positive films by area, together with all negative films; under
    "by_site" those of each site, where there is more than one."""
    positives, negatives = _parted(films)
    positives = sorted(positives, key=lambda f: f.area_fraction)
    thirds = np.array_split(np.arange(len(positives)), 3)
    by_area = {
        name: figures([positives[i] for i in third], negatives)
        for name, third in zip(("small", "medium", "large"), thirds, strict=True)
        if len(third)
    }
    sites = sorted({f.site for f in films})
    by_site = {site: figures(*_parted([f for f in films if f.site == site])) for site in sites}
    return {**figures(positives, negatives), "by_area": by_area, **({"by_site": by_site} if len(sites) > 1 else {})}


def figures(positives: Sequence[ScoredFilm], negatives: Sequence[ScoredFilm]) -> dict[str, float | int | None]:
    """The numbers of positive and negative films, and all figures, rounded to four places; None where a figure is undefined."""
    values = scalars(Table.of([*positives, *negatives]))
    rounded = {name: None if value is None else round(value, 4) for name, value in values.items()}
    return {"positives": len(positives), "negatives": len(negatives), **rounded}


def scalars(films: Table) -> dict[str, float | None]:
    """All figures, not rounded; None where a figure is undefined."""
    truth, answer, both = (int(px) for px in films.grid.sum(axis=0))
    positive, found = films.positive, films.called_positive
    return {
        "pooled_dice": _ratio(2 * both, truth + answer),
        "pooled_iou": _ratio(both, truth + answer - both),
        "pooled_precision": _ratio(both, answer),
        "pooled_recall": _ratio(both, truth),
        "kaggle_dice": _mean(films.grid_dice),
        "mean_positive_dice": _mean(films.native_dice[positive]),
        "tp_dice": _mean(films.native_dice[positive & found]),
        "auroc": auroc(positive, films.probability),
        "average_precision": average_precision(positive, films.probability),
        "sensitivity": _mean(found[positive]),
        "specificity": _mean(~found[~positive]),
        "ece": expected_calibration_error(positive, films.probability),
    }


def auroc(truth: np.ndarray, score: np.ndarray) -> float | None:
    """Area under the ROC curve: the probability that a positive film scores above a negative one, ties half. `truth` (N,) bool,
    `score` (N,) float. None without films of both kinds."""
    n, m = int(truth.sum()), int((~truth).sum())
    if not n or not m:
        return None
    return float((rankdata(score)[truth].sum() - n * (n + 1) / 2) / (n * m))


def average_precision(truth: np.ndarray, score: np.ndarray) -> float | None:
    """Precision averaged over the steps of recall, films of equal score together. `truth` (N,) bool, `score` (N,) float. None
    without positive films."""
    if not truth.any():
        return None
    hits, alarms = ranked(truth, score)
    return float((np.diff(hits, prepend=0) / hits[-1] * hits / (hits + alarms)).sum())


def ranked(truth: np.ndarray, score: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of positive and negative films that score at least each level, levels from high to low. Two arrays
    (levels,)."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=-np.inf))  # equal scores cannot be told apart by any threshold
    return np.cumsum(truth[order])[last], np.cumsum(~truth[order])[last]


def expected_calibration_error(truth: np.ndarray, probability: np.ndarray, bins: int = BINS) -> float | None:
    """Mean difference of predicted and actual share of positive films, weighted by the films of each bin (Guo et al., ICML
    2017). `truth` (N,) bool, `probability` (N,) in [0, 1]. None without films."""
    if not len(truth):
        return None
    _, promised, actual = calibration(truth, probability, bins)
    return float(np.abs(actual - promised).sum() / len(truth))


def calibration(truth: np.ndarray, probability: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of equal bins of probability: number of films, predicted positives (the sum of their probabilities), and
    positives.

    Three arrays (bins,). A probability of 1 belongs to the last bin.
    """
    which = np.minimum((probability * bins).astype(int), bins - 1)
    return (
        np.bincount(which, minlength=bins),
        np.bincount(which, probability, minlength=bins),
        np.bincount(which, truth, minlength=bins),
    )


def _parted(films: Sequence[ScoredFilm]) -> tuple[list[ScoredFilm], list[ScoredFilm]]:
    return [f for f in films if f.positive], [f for f in films if not f.positive]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
