"""95 % confidence intervals of the figures, by the bootstrap over patients.

Percentile interval of Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: draw as many patients as there
are, with replacement, measure again, and cut 2.5 % of the results off at either end. Films of one person are alike, so a
patient is drawn with all films: drawing films one by one makes the interval too narrow.

Limits: a figure that is equal in every draw (no film missed, say) has an interval of width 0, although another hospital may
differ. The ECE cannot be negative, so that chance only increases it: its interval is too high, and may not contain an estimate
near 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.report.metrics import ScoredFilm, Table, scalars

PERCENTILES = (2.5, 97.5)


def intervals(films: Sequence[ScoredFilm], resamples: int = 1000, seed: int = 0) -> dict[str, list[float] | None]:
    """[low, high] of every figure of `train.report.metrics.scalars`, rounded to four places.

    None where a figure could not be computed in most draws, or where all films are of one patient. `seed`: the same films
    in the same order give the same intervals.
    """
    table = Table.of(films)
    names, patient = np.unique([f.patient for f in films], return_inverse=True)
    if len(names) < 2:
        return dict.fromkeys(scalars(table))
    rng = np.random.default_rng(seed)
    draws = [scalars(table.take(_draw(rng, patient, len(names)))) for _ in range(resamples)]
    return {name: _interval([draw[name] for draw in draws]) for name in draws[0]}


def _draw(rng: np.random.Generator, patient: np.ndarray, patients: int) -> np.ndarray:
    """Indices of films, each as often as its patient was drawn. `patient`: (N,) int in [0, patients)."""
    times = np.bincount(rng.integers(patients, size=patients), minlength=patients)
    return np.repeat(np.arange(len(patient)), times[patient])


def _interval(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    if 2 * len(known) <= len(values):
        return None
    low, high = np.percentile(known, PERCENTILES)
    return [round(float(low), 4), round(float(high), 4)]
