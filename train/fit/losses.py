"""Losses on logits, in float32 whatever the network computed in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from train.fit.recipe import LossWeights


def batch_dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of the whole batch as one picture: a film without pneumothorax costs its false positive pixels only.

    Shapes: both (N, 1, S, S); truth 0 or 1. Returns a scalar in [0, 1].
    """
    probability = logits.float().sigmoid()
    overlap = (probability * truth).sum()
    return 1 - (2 * overlap + 1) / (probability.sum() + truth.sum() + 1)


def film_dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of each positive film, mean over them, as `mean_positive_dice` counts. 0 without a positive film.

    Shapes: both (N, 1, S, S); truth 0 or 1. Returns a scalar in [0, 1].
    """
    probability, wanted = logits.float().sigmoid().flatten(1), truth.flatten(1)
    dice = (2 * (probability * wanted).sum(1) + 1) / (probability.sum(1) + wanted.sum(1) + 1)
    positive = wanted.amax(1)
    return ((1 - dice) * positive).sum() / positive.sum().clamp(min=1)


def lovasz_hinge(logits: Tensor, truth: Tensor) -> Tensor:
    """The convex extension of 1 - IoU, mean over films (Berman et al., CVPR 2018, algorithm 1).

    Shapes: both (N, 1, S, S); truth 0 or 1. Returns a scalar >= 0.
    """
    flat, wanted = logits.float().flatten(1), truth.flatten(1)
    errors, order = (1 - flat * (2 * wanted - 1)).sort(dim=1, descending=True)
    ordered = wanted.gather(1, order)
    positives = ordered.sum(1, keepdim=True)
    overlap, union = positives - ordered.cumsum(1), positives + (1 - ordered).cumsum(1)
    jaccard = 1 - overlap / union.clamp(min=1)
    steps = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], 1)
    return (relu(errors) * steps).sum(1).mean()


def symmetric_lovasz(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean of the Lovasz hinge of the lesion and of the background, so that a film without lesion has a gradient besides that
    of its worst pixel. Shapes as of `lovasz_hinge`."""
    return (lovasz_hinge(logits, truth) + lovasz_hinge(-logits, 1 - truth)) / 2


def focal_loss(logits: Tensor, truth: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross entropy in which confident pixels count little (Lin et al., ICCV 2017, without alpha). Shapes as of
    `lovasz_hinge`."""
    cost = binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
    return ((1 - torch.exp(-cost)) ** gamma * cost).mean()


def total_loss(mask_logits: Tensor, image_logits: Tensor, truth: Tensor, weights: LossWeights) -> dict[str, Tensor]:
    """mask_logits, truth (N, 1, S, S); image_logits (N, 1). The parts with a weight, by name, and their weighted sum as
    "total", all scalars."""
    positive = truth.flatten(1).amax(1, keepdim=True)
    of = {
        "bce": lambda: binary_cross_entropy_with_logits(mask_logits.float(), truth),
        "dice": lambda: batch_dice_loss(mask_logits, truth),
        "image": lambda: binary_cross_entropy_with_logits(image_logits.float(), positive),
        "lovasz": lambda: symmetric_lovasz(mask_logits, truth),
        "focal": lambda: focal_loss(mask_logits, truth),
        "film_dice": lambda: film_dice_loss(mask_logits, truth),
    }
    # The image-level head is always part of the graph: without a weight it still gets a gradient, of zero.
    parts = {name: loss() for name, loss in of.items() if getattr(weights, name) or name == "image"}
    total = sum((getattr(weights, name) * part for name, part in parts.items()), torch.zeros((), device=truth.device))
    return {**parts, "total": total}
