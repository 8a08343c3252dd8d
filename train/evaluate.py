"""The exam: films as DICOM through the whole serving path, answers against the phantoms' truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from segmenter.artifact import load_artifact
from segmenter.engine import Segmenter
from segmenter.phantom import Phantom
from segmenter.placement import Placement
from segmenter.settings import Settings
from train.exam import exam_films, exam_sha256, is_frozen
from train.metrics import Counts, Scored, measure

POOLED_AT = 512  # px: the grid of the published pooled figures, whatever the input size of the artifact
BASELINE_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


def evaluate(folder: Path, films: int, tell: Callable[[str], None] = lambda line: None) -> dict[str, object]:
    """Take the first `films` of the exam with the artifact in `folder`: every figure, by area, and the
    baseline beside it.

    A film that is skipped or refused counts as answered "none", and is counted under "unanswered".
    """
    artifact = load_artifact(folder)
    segmenter = Segmenter(artifact, Settings())
    scored: list[Scored] = []
    guesses: list[list[float]] = []
    unanswered: dict[str, int] = {}
    for i, (phantom, dataset) in enumerate(exam_films(films)):
        (finding,) = segmenter.segment([dataset])
        decision = finding.decision
        if decision is None:
            unanswered[finding.code or "?"] = unanswered.get(finding.code or "?", 0) + 1
        mask = np.zeros_like(phantom.truth) if decision is None else decision.mask
        scored.append(score(phantom, mask, 0.0 if decision is None else decision.image_probability))
        if phantom.pneumothorax:
            guesses.append([Counts.of(phantom.truth, guess).dice for guess in baseline(phantom.image)])
        s, sign = scored[-1], "+" if phantom.pneumothorax else "-"
        tell(f"{i + 1}/{films} {sign} p {s.image_probability:.3f} dice {s.native.dice:.3f}")
    best = float(np.max(np.mean(guesses, axis=0))) if guesses else 0.0
    return {
        "films": films,
        "unanswered": unanswered or "none",
        "frozen": is_frozen(),
        "exam_sha256": exam_sha256(),
        "weights_sha256": artifact.sha256,
        "operating_point": artifact.manifest.operating_point,
        "command": f"python -m train evaluate --artifact DIR --films {films}",
        **measure(scored),
        "baseline": {"mean_positive_dice": round(best, 4), "thresholds": len(BASELINE_THRESHOLDS)},
    }


def score(phantom: Phantom, mask: np.ndarray, image_probability: float) -> Scored:
    """`mask` (H, W) bool on the native matrix."""
    placement = Placement.fit(phantom.truth.shape, POOLED_AT)
    truth, answer = (placement.to_model(part.astype(np.float32)) > 0.5 for part in (phantom.truth, mask))
    native, grid = Counts.of(phantom.truth, mask), Counts.of(truth, answer)
    return Scored(str(phantom.seed), native, grid, image_probability, phantom.area_fraction)


def baseline(image: np.ndarray) -> list[np.ndarray]:
    """What a threshold can do: the largest dark region that does not touch the edge of the film, at each
    threshold. `image` (H, W) float32 in [0, 1]. A phantom that this solves would be too easy."""
    height, width = image.shape
    small = cv2.resize(image, (width * 512 // max(image.shape), height * 512 // max(image.shape)))
    small = cv2.GaussianBlur(small, (0, 0), 2)
    return [_largest_inside(small < t, (width, height)) for t in BASELINE_THRESHOLDS]


def _largest_inside(dark: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark.astype(np.uint8))
    edge = set(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]).tolist())
    inside = [i for i in range(1, count) if i not in edge]
    chosen = max(inside, key=lambda i: stats[i, cv2.CC_STAT_AREA], default=-1)
    return cv2.resize((labels == chosen).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
