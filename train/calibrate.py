"""Temperature and thresholds from validation films, never from the exam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from segmenter.artifact import OperatingPoint
from train.augment import plain
from train.metrics import Counts

# The smallest twentieth of lesions begins at .0013 of the film. A fifth of that is a speck:
# .00025 of 512 x 512 px is 64 px, and of a film of 38 cm 36 mm2.
MIN_AREA_PX_AT_512, MIN_AREA_MM2 = 64, 36.0
SENSITIVE = 0.97  # of the validation positives, for the second operating point


@dataclass(frozen=True)
class Answers:
    """What a network says of the validation films, mean of the film and its mirror image."""

    probability: np.ndarray  # (N, S, S) float16
    image_logit: np.ndarray  # (N,)
    truth: np.ndarray  # (N, S, S) bool

    @property
    def positive(self) -> np.ndarray:
        return np.asarray(self.truth.any(axis=(1, 2)))


@torch.inference_mode()
def answers(network: torch.nn.Module, films: Sequence[np.ndarray], size: int, mean: float, std: float) -> Answers:
    network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    probabilities, logits, truths = [], [], []
    for film in films:
        image, truth = plain(film, size)
        x = torch.from_numpy((image - mean) / std)[None, None]
        mask, decision = network(torch.cat([x, x.flip(3)]).contiguous(memory_format=torch.channels_last))
        p = mask.sigmoid()
        probabilities.append(((p[0, 0] + p[1, 0].flip(1)) / 2).numpy().astype(np.float16))
        logits.append(float(decision.mean()))
        truths.append(truth > 0.5)
    return Answers(np.stack(probabilities), np.array(logits), np.stack(truths))


def temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The divisor of the logits that makes the films likeliest, of 61 between 1/8 and 8."""
    candidates = np.geomspace(0.125, 8, 61)
    signed = np.where(truth, logits, -logits)
    cost = [np.logaddexp(0, -signed / t).mean() for t in candidates]
    return float(round(candidates[int(np.argmin(cost))], 4))


def mask_threshold(of: Answers) -> float:
    """The threshold with the best sum of mean and pooled Dice over the positive films."""
    chosen = np.flatnonzero(of.positive)
    best = (0.0, 0.5)
    for threshold in np.arange(0.15, 0.75, 0.05):
        counts = [Counts.of(of.truth[i], of.probability[i] >= threshold) for i in chosen]
        pooled = 2 * sum(c.both for c in counts) / sum(c.truth + c.answer for c in counts)
        best = max(best, (float(np.mean([c.dice for c in counts])) + pooled, float(threshold)))
    return round(best[1], 2)


def image_thresholds(probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """ "balanced": the smaller of sensitivity and specificity is largest; "sensitive": at least SENSITIVE of
    the positives. Each lies in the middle between the two nearest films, where a small change of either turns
    nothing round."""
    levels = np.unique(np.concatenate([[0.0], probability, [1.0]]))
    between = (levels[1:] + levels[:-1]) / 2
    hits = np.array([(probability[truth] >= t).mean() for t in between])
    spared = np.array([(probability[~truth] < t).mean() for t in between])
    smaller = np.minimum(hits, spared)
    best = np.flatnonzero(smaller == smaller.max())
    enough = np.flatnonzero(hits >= SENSITIVE)
    return {
        "balanced": float(round(between[best[len(best) // 2]], 4)),
        "sensitive": float(round(min(between[enough[-1]], between[best[len(best) // 2]]), 4)),
    }


def operating_points(of: Answers, by: float, size: int) -> dict[str, OperatingPoint]:
    """`by`: the temperature."""
    probability = 1 / (1 + np.exp(-of.image_logit / by))
    mask = mask_threshold(of)
    floor = round(MIN_AREA_PX_AT_512 * (size / 512) ** 2)
    return {
        name: OperatingPoint(threshold, mask, MIN_AREA_MM2, floor)
        for name, threshold in image_thresholds(probability, of.positive).items()
    }
