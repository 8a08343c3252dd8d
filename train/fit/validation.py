"""Validation of an epoch: averaged weights on the held-out films, on the model's grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from segmenter.model.network import build_network
from train.data.dataset import FilmRow, PreparedSet
from train.fit.predictions import LEVELS, Predictions, predict_films
from train.fit.recipe import Recipe, Stage
from train.report import pictures
from train.report.metrics import auroc

SHEET = 16  # films on a contact sheet


def validate(
    recipe: Recipe,
    stage: Stage,
    data: PreparedSet,
    rows: Sequence[FilmRow],
    tensors: Mapping[str, torch.Tensor],
    device: torch.device,
) -> tuple[dict[str, float], Predictions]:
    """`mean_positive_dice` at the best of the recipe's thresholds, `auroc` and `threshold`, each in [0, 1], and the
    predictions. Without flips, smallest area and image threshold. `tensors`: the weights by name."""
    network = build_network(recipe.network)
    network.load_state_dict(dict(tensors))
    network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    predictions = predict_films(
        network, data, rows, size=stage.size, mean=recipe.mean, std=recipe.std, flips=False, device=device
    )
    dice = {t: mean_positive_dice(predictions, t) for t in recipe.validation_threshold}
    best = max(dice, key=lambda t: dice[t])
    ranked = auroc(predictions.positive, predictions.image_probability())
    return {"mean_positive_dice": dice[best], "auroc": 0.5 if ranked is None else ranked, "threshold": best}, predictions


def mean_positive_dice(predictions: Predictions, threshold: float) -> float:
    """Mean Dice, [0, 1], of the positive films; a lesion too small for the grid counts as missed. 0 without positive films."""
    chosen = np.flatnonzero(predictions.positive)
    predicted = predictions.probability[chosen] >= threshold * LEVELS
    truth = predictions.truth[chosen]
    both, area = (predicted & truth).sum((1, 2)), predicted.sum((1, 2)) + truth.sum((1, 2))
    return float((2 * both / np.maximum(area, 1)).mean()) if len(chosen) else 0.0


def contact_sheet(data: PreparedSet, predictions: Predictions, figures: Mapping[str, float], path: Path) -> None:
    """Draw a picture (PNG) of always the same films, positives first: truth green, prediction red. Raises OSError."""
    order = np.argsort(~predictions.positive, kind="stable")
    chosen = list(dict.fromkeys([*order[: SHEET * 3 // 4], *order[::-1][: SHEET // 4]]))
    images, _ = data.read([predictions.rows[i] for i in chosen], data.grid_for(predictions.size))
    tiles = []
    p = predictions.image_probability()
    for i, image in zip(chosen, images, strict=True):
        predicted = predictions.probability[i] >= figures["threshold"] * LEVELS
        film = torch.from_numpy(image)[None, None].float() / 255
        shrunk = torch.nn.functional.interpolate(film, predictions.size, mode="area")[0, 0].numpy()
        tiles.append((shrunk, predictions.truth[i], predicted, f"{predictions.rows[i].name[-12:]}  p {p[i]:.2f}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.contact_sheet(tiles, path)
