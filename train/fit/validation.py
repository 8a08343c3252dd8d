"""The judgement of an epoch: averaged weights against the held-out films, on the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from segmenter.model.network import build_network
from train.data.dataset import Prepared, Row
from train.fit.predictions import LEVELS, Answers, answers
from train.fit.recipe import Recipe, Stage
from train.report import pictures
from train.report.metrics import auroc

SHEET = 16  # films on a contact sheet


def judge(
    recipe: Recipe, stage: Stage, data: Prepared, rows: Sequence[Row], tensors: Mapping[str, torch.Tensor], device: torch.device
) -> tuple[dict[str, float], Answers]:
    """`mean_positive_dice` at the best of the recipe's thresholds, `auroc`, `threshold`; no flips, no floor, no gate."""
    network = build_network(recipe.network)
    network.load_state_dict(dict(tensors))
    network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    said = answers(network, data, rows, size=stage.size, mean=recipe.mean, std=recipe.std, flips=False, device=device)
    dice = {t: mean_positive_dice(said, t) for t in recipe.validation_threshold}
    best = max(dice, key=lambda t: dice[t])
    ranked = auroc(said.positive, said.image_probability())
    return {"mean_positive_dice": dice[best], "auroc": 0.5 if ranked is None else ranked, "threshold": best}, said


def mean_positive_dice(said: Answers, threshold: float) -> float:
    """Mean Dice of the positive films; one too small for the grid is a miss. 0 without any."""
    chosen = np.flatnonzero(said.positive)
    answer = said.probability[chosen] >= threshold * LEVELS
    both, area = (answer & said.truth[chosen]).sum((1, 2)), answer.sum((1, 2)) + said.truth[chosen].sum((1, 2))
    return float((2 * both / np.maximum(area, 1)).mean()) if len(chosen) else 0.0


def contact_sheet(data: Prepared, said: Answers, figures: Mapping[str, float], path: Path) -> None:
    """Always the same films, positives first: truth green, answer red."""
    order = np.argsort(~said.positive, kind="stable")
    chosen = list(dict.fromkeys([*order[: SHEET * 3 // 4], *order[::-1][: SHEET // 4]]))
    images, _ = data.read([said.rows[i] for i in chosen], data.grid_for(said.size))
    tiles = []
    p = said.image_probability()
    for i, image in zip(chosen, images, strict=True):
        answer = said.probability[i] >= figures["threshold"] * LEVELS
        shrunk = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None].float() / 255, said.size, mode="area")[
            0, 0
        ].numpy()
        tiles.append((shrunk, said.truth[i], answer, f"{said.rows[i].name[-12:]}  p {p[i]:.2f}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.contact_sheet(tiles, path)
