"""Evaluation of a model on films with a known truth, through the whole inference path: gate, decoding, placement, network,
mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from segmenter.engine import Segmenter
from segmenter.model.artifact import load_artifact
from segmenter.model.placement import Placement
from segmenter.settings import Settings
from segmenter.values import Finding, Radiograph
from train.evaluate.baseline import baseline_masks
from train.evaluate.calibrate import PUBLISHED
from train.evaluate.exam import exam_sha256
from train.evaluate.sources import Exam, LabelledFilm, Source, training_overlap
from train.fit.journal import write_json
from train.report import pictures
from train.report.intervals import intervals
from train.report.metrics import Counts, ScoredFilm, measure
from train.report.tables import markdown

POOLED_AT = 512  # px: the grid of the published pooled figures, whatever the input size of the artifact
WORST = 16  # films on the contact sheet
TILE = 384  # px: longer side of a film on it


def evaluate(
    folder: Path,
    source: Source,
    out: Path | None,
    *,
    command: str = "",
    operating_point: str = "",
    device: str = "auto",
    published: bool = False,
) -> dict[str, Any]:
    """All figures with their intervals, by area and site; written to `out` as report.json, report.md and pictures, unless it is
    None.

    A film that is skipped or refused counts as negative with probability 0, and under "unanswered". `command`: the command that
    repeats this. `published`: also resize the positive films to 512 x 512 and measure them as the published figures were.
    Raises SegmenterError, DataError, OSError.
    """
    artifact = load_artifact(folder)
    note = training_overlap(source, artifact.manifest)
    segmenter = Segmenter(artifact, Settings(operating_point=operating_point, device=device))
    scored: list[ScoredFilm] = []
    tiles: list[tuple[float, pictures.Tile]] = []
    squashed: list[Counts] = []
    guesses: list[list[float]] = []
    unanswered = Counter[str]()
    for film, finding in tqdm(_answered(segmenter, source), total=source.count, desc=source.title, unit="film"):
        if finding.decision is None:
            unanswered[finding.code or "?"] += 1
        mask = np.zeros_like(film.truth) if finding.decision is None else finding.decision.mask
        probability = 0.0 if finding.decision is None else finding.decision.image_probability
        scored.append(score_film(film, mask, probability))
        if finding.radiograph is not None:
            tiles.append((scored[-1].native.dice, _tile(finding.radiograph, film, mask, scored[-1])))
            tiles = sorted(tiles, key=lambda t: t[0])[:WORST]
        image = np.zeros(film.truth.shape, np.float32) if finding.radiograph is None else finding.radiograph.image
        if published and film.truth.any():
            squashed.append(squashed_counts(segmenter, image, film.truth))
        if isinstance(source, Exam) and film.truth.any():
            guesses.append([Counts.of(film.truth, guess).dice for guess in baseline_masks(image)])
    figures = measure(scored)
    report = {
        "source": source.title,
        "command": command,
        "films": len(scored),
        "patients": len({s.patient for s in scored}),
        "unusable": source.unusable,
        "unanswered": unanswered,
        "model": {"name": artifact.manifest.name, "version": artifact.manifest.version, "weights_sha256": artifact.sha256},
        "operating_point": segmenter.identity.operating_point,
        "note": note,
        **figures,
        "intervals": intervals(scored),
        **({"published": _published(squashed)} if published else {}),
    }
    if isinstance(source, Exam):
        best = float(np.max(np.mean(guesses, axis=0))) if guesses else 0.0
        report |= {"exam_sha256": exam_sha256(), "baseline": round(best, 4)}
    if out is not None:
        write_report(report, scored, [tile for _, tile in tiles], out)
    return report


def _answered(segmenter: Segmenter, source: Source) -> Iterator[tuple[LabelledFilm, Finding]]:
    """The films with their findings, in batches where the device is faster with them."""
    batch = 8 if torch.cuda.is_available() else 1
    waiting: list[LabelledFilm] = []
    for film in source.read():
        waiting.append(film)
        if len(waiting) == batch:
            yield from zip(waiting, segmenter.segment([g.dataset for g in waiting]), strict=True)
            waiting = []
    if waiting:
        yield from zip(waiting, segmenter.segment([g.dataset for g in waiting]), strict=True)


def score_film(film: LabelledFilm, mask: NDArray[np.bool_], image_probability: float) -> ScoredFilm:
    """Compare an answer with the truth: `mask` (H, W) bool on the native matrix, `image_probability` in [0, 1]."""
    placement = Placement.fit(film.truth.shape, POOLED_AT)  # type: ignore[arg-type]
    truth, answer = (placement.to_model(part.astype(np.float32)) > 0.5 for part in (film.truth, mask))
    native, grid = Counts.of(film.truth, mask), Counts.of(truth, answer)
    return ScoredFilm(film.name, film.patient, film.site, native, grid, image_probability, float(film.truth.mean()))


def squashed_counts(segmenter: Segmenter, image: NDArray[np.float32], truth: NDArray[np.bool_]) -> Counts:
    """Pixels counted as for the published figures: the film resized to a square whatever its shape, no image threshold, mask
    threshold .05, no smallest area, at 512 x 512. `image` (H, W) float32 in [0, 1], `truth` (H, W) bool."""
    size = segmenter.size
    x = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    (prediction,) = segmenter.predict(np.asarray(x, np.float32)[None, None])
    p = cv2.resize(prediction.probability, (POOLED_AT, POOLED_AT), interpolation=cv2.INTER_LINEAR)
    wanted = cv2.resize(truth.astype(np.float32), (POOLED_AT, POOLED_AT), interpolation=cv2.INTER_AREA) > 0.5
    return Counts.of(wanted, p >= PUBLISHED.mask_threshold)


def _published(counts: list[Counts]) -> dict[str, Any]:
    truth, answer, both = (sum(getattr(c, name) for c in counts) for name in ("truth", "answer", "both"))
    ours = {
        "pooled_dice": 2 * both / max(truth + answer, 1),
        "pooled_iou": both / max(truth + answer - both, 1),
        "pooled_precision": both / max(answer, 1),
        "pooled_recall": both / max(truth, 1),
    }
    return {"films": len(counts), **{k: round(v, 4) for k, v in ours.items()}}


def _tile(radiograph: Radiograph, film: LabelledFilm, mask: NDArray[np.bool_], scored: ScoredFilm) -> pictures.Tile:
    scale = min(1.0, TILE / max(mask.shape))
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    image = cv2.resize(radiograph.image, size, interpolation=cv2.INTER_AREA)
    truth, answer = (cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in (film.truth, mask))
    caption = f"{film.name[-14:]} p {scored.image_probability:.2f} Dice {scored.native.dice:.2f}"
    return np.asarray(image, np.float32).clip(0, 1), truth, answer, caption


def write_report(report: dict[str, Any], scored: list[ScoredFilm], tiles: list[pictures.Tile], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "report.json", report)
    (out / "report.md").write_text(markdown(report))
    pictures.reliability(scored, out / "reliability.png")
    pictures.dice_against_area(scored, out / "dice_against_area.png")
    at = (report["sensitivity"], report["specificity"])
    pictures.roc(scored, out / "roc.png", at if None not in at else None)
    if tiles:
        pictures.contact_sheet(tiles, out / "worst.png")
