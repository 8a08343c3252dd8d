"""Temperature, thresholds and smallest area (floor) from out-of-fold predictions, or from a separate data set: every film is
predicted by a network that has not seen its patient. Never from the exam, never from a test set.

Three operating points:

- ``published``    no image gate, mask threshold .05, no floor, as the published .8241 / .7008 were measured (on the film
                   squashed to 512 x 512): only to compare, never served
- ``leaderboard``  the best kaggle_dice
- ``clinical``     sensitivity >= .95, then the best sum of specificity and mean_positive_dice; a floor that takes at most
                   the smallest twentieth of true regions

Of image thresholds with equal results on these films, the middle one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from segmenter.model.artifact import OperatingPoint
from segmenter.model.network import build_network
from train.data.dataset import PreparedSet
from train.fit import checkpoint
from train.fit.fit import RECIPE_FILE, RunError, run_notes
from train.fit.journal import write_json
from train.fit.predictions import LEVELS, Predictions, averaged_predictions, concatenated, predict_films
from train.fit.recipe import Recipe, load_recipe
from train.report import pictures
from train.report.metrics import auroc, expected_calibration_error

CALIBRATION_FILE = "calibration.json"
SENSITIVITY = 0.95
MASK_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)
FLOORS = (0.0, 1.0, 2.5, 5.0)  # percentiles of the area of true regions
IMAGE_THRESHOLDS = 200  # quantiles of the films' probabilities
FILM_MM = 380.0  # longer side of a chest film, where no film of the data set tells its spacing
PUBLISHED = OperatingPoint(0.0, 0.05, 0.0, 0.0)

Figures = dict[str, float]


@dataclass(frozen=True)
class Floor:
    """The area below which a region is dropped: in mm2 where the spacing is known, else in pixels of the grid; `percentile`: of
    the areas of true regions."""

    percentile: float
    mm2: float
    px: float


@dataclass(frozen=True)
class MaskCounts:
    """Pixels of N films at one mask threshold and one floor, before the image threshold."""

    mask_threshold: float
    floor: Floor
    answer: NDArray[np.int64]  # (N,) px in the predicted mask
    both: NDArray[np.int64]  # (N,) px in the predicted and the true mask


def calibrate(
    data: PreparedSet,
    runs: Sequence[Path],
    out: Path,
    *,
    on: PreparedSet | None = None,
    size: int = 0,
    which: str = "best",
    device: str = "auto",
) -> dict[str, Any]:
    """Write calibration.json and curve.png into `out`; returns the content of calibration.json. `runs`: one for each fold.

    `on`: a data set that no run has seen, in place of the films that each run held out; all runs predict all of it, and their
    mean is used. Raises RunError when runs do not belong together or to the data, FileNotFoundError without a checkpoint.
    """
    recipe, notes = matching_runs(data, runs)
    if on is not None:
        _refuse_the_seen(on, data)
    size, flips = size or recipe.stages[-1].size, recipe.flips
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    parts: list[Predictions] = []
    digests: list[str] = []
    for run, note in zip(runs, notes, strict=True):
        network = build_network(recipe.network)
        weights = checkpoint.select_weights(run, which)
        digests.append(checkpoint.digest(weights))
        network.load_state_dict(weights)
        network = network.eval().to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        films, rows = (on, list(on.rows)) if on is not None else (data, data.fold(note["fold"])[1])
        parts.append(
            predict_films(
                network, films, rows, size=size, mean=recipe.mean, std=recipe.std, flips=flips, device=where, quiet=False
            )
        )
    predictions = averaged_predictions(parts) if on is not None else concatenated(parts)
    found = {
        "size": size,
        "flips": flips,
        "weights": which,
        "weights_sha256": digests,
        "folds": [note["fold"] for note in notes],
        "data_sha256": data.digest,
        "folds_sha256": data.about["folds_sha256"],
        "on": f"{on.about['kind']}, index {on.digest[:16]}" if on is not None else "",
        **choose_operating_points(predictions, size),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / CALIBRATION_FILE, found)
    at = {name: p["image_threshold"] for name, p in found["operating_points"].items() if name != "published"}
    pictures.threshold_curve(found["curve"], out / "curve.png", at)
    return found


def _refuse_the_seen(on: PreparedSet, data: PreparedSet) -> None:
    """Raises RunError when films or patients of `on` are in the data set of the runs."""
    for what in ("name", "patient"):
        if seen := {getattr(row, what) for row in on.rows} & {getattr(row, what) for row in data.rows}:
            words = f"{len(seen)} {'films' if what == 'name' else 'patients'} of {on.folder} are in {data.folder}, too"
            raise RunError(f"{words}: choose films of patients that no run has learned")


def matching_runs(data: PreparedSet, runs: Sequence[Path]) -> tuple[Recipe, list[dict[str, Any]]]:
    """The recipe and the notes of runs that form one ensemble. Raises RunError when recipe, folds or data set do not fit."""
    notes = [run_notes(run) for run in runs]
    texts = {(run / RECIPE_FILE).read_text() for run in runs}
    if len(texts) != 1:
        raise RunError("the runs have different recipes; one artifact is of one recipe")
    if len({note["fold"] for note in notes}) != len(notes):
        raise RunError("two runs held out the same fold; give one run for each fold")
    for run, note in zip(runs, notes, strict=True):
        if note["data_sha256"] != data.digest:
            raise RunError(
                f"{run} was trained on another data set than {data.folder}: its figures would be of films that it has seen"
            )
    return load_recipe(str(runs[0] / RECIPE_FILE)), notes


def choose_operating_points(predictions: Predictions, size: int) -> dict[str, Any]:
    """Temperature, operating points, the figures of each on these films, and the curve of `clinical`. `size`: px of the
    network's input, in whose pixels the floor is given."""
    grid = size / predictions.size
    by = fit_temperature(predictions)
    probability = predictions.image_probability(by)
    of, tried = floors(predictions), tqdm(MASK_THRESHOLDS, desc="calibrate", unit="threshold")
    table = [cell for threshold in tried for cell in mask_counts(predictions, threshold, of)]
    gates = image_thresholds(probability)
    rows = [(c, f) for c in table for f in figures(predictions, c, probability, gates)]
    clinical, met = _clinical(rows)
    chosen = {"clinical": clinical, "leaderboard": _best(rows, lambda f: (f["kaggle_dice"],))}
    made = {
        name: OperatingPoint(gate, c.mask_threshold, c.floor.mm2, round(c.floor.px * grid**2, 2))
        for name, (c, gate) in chosen.items()
    }
    return {
        "films": len(predictions.rows),
        "positives": int(predictions.positive.sum()),
        "temperature": by,
        "auroc": _rounded(auroc(predictions.positive, probability)),
        "ece": _rounded(expected_calibration_error(predictions.positive, probability)),
        "sensitivity_met": met,
        "operating_points": {**{n: asdict(p) for n, p in made.items()}, "published": asdict(PUBLISHED)},
        "floor_percentiles": {n: c.floor.percentile for n, (c, _) in chosen.items()},
        "figures": {n: figures(predictions, c, probability, np.array([gate]))[0] for n, (c, gate) in chosen.items()},
        "curve": figures(predictions, clinical[0], probability, gates),
    }


def fit_temperature(predictions: Predictions) -> float:
    """The divisor of the logits with the highest likelihood, of 121 between 1/8 and 8 (Guo et al., ICML 2017). The logits of
    several passes are each divided by it, and their probabilities averaged, as in the hospital."""
    candidates = np.geomspace(0.125, 8, 121)
    signed = np.where(predictions.positive, predictions.image_logits, -predictions.image_logits)
    # log of the mean of sigmoids, computed in logarithms: with an underflow, confident errors would cost nothing
    cost = [-np.logaddexp.reduce(-np.logaddexp(0, -signed / t), axis=0).mean() for t in candidates]
    return float(round(candidates[int(np.argmin(cost))], 4))


def image_thresholds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Candidate thresholds, each in the middle of two neighbouring probabilities, so that a small change of either changes no
    answer; with many films, quantiles of them. `probability` (N,) in [0, 1]. At 0 every film is positive."""
    levels = np.unique(np.concatenate([[0.0], probability, [1.0]]))
    between = (levels[1:] + levels[:-1]) / 2
    if len(between) > IMAGE_THRESHOLDS:
        between = between[np.linspace(0, len(between) - 1, IMAGE_THRESHOLDS).round().astype(int)]
    return np.round(np.concatenate([[0.0], between]), 5)


def floors(predictions: Predictions) -> list[Floor]:
    """The candidates: percentiles of the areas of the true regions of these films."""
    mm2, px = [], []
    for i in np.flatnonzero(predictions.positive):
        areas = _regions(predictions.truth[i])[0]
        px += areas.tolist()
        mm2 += (areas * pixel_mm2(predictions, int(i))).tolist()
    known = [a for a in mm2 if a > 0] or [a * (FILM_MM / predictions.size) ** 2 for a in px]
    if not px:
        return [Floor(0.0, 0.0, 0.0)]
    return [
        Floor(q, round(float(np.percentile(known, q)), 2) if q else 0.0, round(float(np.percentile(px, q)), 2) if q else 0.0)
        for q in FLOORS
    ]


def pixel_mm2(predictions: Predictions, i: int) -> float:
    """Area in mm2 of a pixel of the grid on film `i`, whose longer side fills the grid; 0 when its spacing is unknown."""
    row = predictions.rows[i]
    return row.pixel_mm2 * (max(row.height, row.width) / predictions.size) ** 2


def mask_counts(predictions: Predictions, threshold: float, of: Sequence[Floor]) -> list[MaskCounts]:
    """The counts for each floor. As in `segmenter.model.mask`: threshold, then regions below the floor are dropped (here on the
    grid, there on the native matrix)."""
    answer, both = (np.zeros((len(of), len(predictions.rows)), np.int64) for _ in range(2))
    for i, p in enumerate(predictions.probability):
        mask = p >= threshold * LEVELS
        if not mask.any():
            continue
        areas, labels = _regions(mask)
        hits = np.bincount(labels[predictions.truth[i]], minlength=len(areas) + 1)[1:]  # true pixels of each region
        mm2 = pixel_mm2(predictions, i)
        for k, floor in enumerate(of):
            kept = areas >= max(floor.mm2 / mm2 if mm2 else floor.px, 1)
            answer[k, i], both[k, i] = areas[kept].sum(), hits[kept].sum()
    return [MaskCounts(threshold, floor, answer[k], both[k]) for k, floor in enumerate(of)]


def figures(
    predictions: Predictions, c: MaskCounts, probability: NDArray[np.float64], gates: NDArray[np.float64]
) -> list[Figures]:
    """For each image threshold of `gates`: sensitivity, specificity, mean_positive_dice and kaggle_dice on the grid, each in
    [0, 1]. `probability` (N,): of the films."""
    positive, truth = predictions.positive, predictions.true_px
    called = (probability[None] >= gates[:, None]) & (c.answer > 0)
    dice = np.where(called, 2 * c.both / np.maximum(truth + c.answer, 1), np.where(truth == 0, 1.0, 0.0))
    return [
        {
            "image_threshold": float(gate),
            "sensitivity": _mean(call[positive]),
            "specificity": _mean(~call[~positive]),
            "mean_positive_dice": _mean(np.where(truth > 0, d, 0.0)[positive]),
            "kaggle_dice": _mean(d),
        }
        for gate, call, d in zip(gates, called, dice, strict=True)
    ]


def _clinical(rows: list[tuple[MaskCounts, Figures]]) -> tuple[tuple[MaskCounts, float], bool]:
    """The best mask threshold with a floor and the best image threshold, and whether they reach the sensitivity. When none
    does: where the smaller of sensitivity and specificity is largest."""
    rows = [r for r in rows if r[0].floor.percentile] or rows
    enough = [r for r in rows if r[1]["sensitivity"] >= SENSITIVITY]
    if enough:
        return _best(enough, lambda f: (f["specificity"] + f["mean_positive_dice"], f["sensitivity"])), True
    return _best(rows, lambda f: (min(f["sensitivity"], f["specificity"]), f["mean_positive_dice"])), False


def _best(rows: list[tuple[MaskCounts, Figures]], score: Callable[[Figures], tuple[float, ...]]) -> tuple[MaskCounts, float]:
    """The counts and the image threshold of the highest score. Of equal image thresholds, the middle one: the lowest lets
    negative films pass that on these films only the mask rejected, and the highest nearly loses a positive."""
    cell, top = max(rows, key=lambda r: score(r[1]))
    equal = [f["image_threshold"] for c, f in rows if c is cell and score(f) == score(top)]
    return cell, equal[len(equal) // 2]


def _regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Areas of the 8-connected regions, and their labels from 1 on."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return stats[1:, cv2.CC_STAT_AREA].astype(np.int64), np.asarray(labels)


def _mean(values: NDArray[Any]) -> float:
    return round(float(values.mean()), 4) if len(values) else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
