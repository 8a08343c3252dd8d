"""Folds: no patient in two of them, and each with its share of empty, small, medium and large lesions.

In SIIM-ACR all positive films are of 802 of the 6,171 patients, and 94-96 % of the positive validation films share a patient
with the training films when films are assigned one by one: such a score measures memory.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

STRATA = ("empty", "small", "medium", "large")


def strata(area_fractions: Sequence[float]) -> list[str]:
    """The stratum of each film: "empty", or its third of the positive films by area. `area_fractions` (N,) in [0, 1]."""
    areas = np.asarray(area_fractions, float)
    positive = areas[areas > 0]
    cuts = np.quantile(positive, [1 / 3, 2 / 3]) if len(positive) else np.zeros(2)
    return [STRATA[0] if a == 0 else STRATA[1 + int(np.searchsorted(cuts, a, side="left"))] for a in areas]


def assign_folds(groups: Sequence[str], of_stratum: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Group (patient) -> fold, 0 to folds - 1. Groups with most positives, then most films, are assigned first, each to the
    fold that lacks most of its strata; the seed breaks ties."""
    kinds = len(STRATA) + 1  # the last one is all films: folds have equal sizes, too
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(kinds))
    for group, stratum in zip(groups, of_stratum, strict=True):
        counts[group][[STRATA.index(stratum), -1]] += 1
    rng = np.random.default_rng(seed)
    order = [sorted(counts)[i] for i in rng.permutation(len(counts))]
    order.sort(key=lambda group: (-counts[group][1:-1].sum(), -counts[group][-1]))
    fair = np.maximum(sum(counts.values(), np.zeros(kinds)) / folds, 1e-9)
    filled, dealt = np.zeros((folds, kinds)), {}
    for group in order:
        lack = ((fair - filled) / fair * (counts[group] > 0)).sum(axis=1)
        dealt[group] = int(np.argmax(lack + 1e-6 * rng.random(folds)))
        filled[dealt[group]] += counts[group]
    return dict(sorted(dealt.items()))


def folds_sha256(fold_of: Mapping[str, int]) -> str:
    """sha256 of an assignment: two runs with equal digests held out the same films."""
    return hashlib.sha256(json.dumps(dict(sorted(fold_of.items()))).encode()).hexdigest()
