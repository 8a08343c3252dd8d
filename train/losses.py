"""Losses on logits, in float32 whatever the network computed in."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from train.config import LossWeights


def batch_dice_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - Dice of the whole batch as one picture: a film without pneumothorax then costs its false pixels and
    no more.

    Shapes: both (N, 1, S, S); truth 0 or 1. Returns a scalar in [0, 1].
    """
    probability = logits.float().sigmoid()
    overlap = (probability * truth).sum()
    return 1 - (2 * overlap + 1) / (probability.sum() + truth.sum() + 1)


def total_loss(
    mask_logits: torch.Tensor, image_logits: torch.Tensor, truth: torch.Tensor, weights: LossWeights
) -> dict[str, torch.Tensor]:
    """mask_logits, truth (N, 1, S, S); image_logits (N, 1). The parts by name, and their weighted sum as
    "total"."""
    positive = truth.flatten(1).amax(1, keepdim=True)
    parts = {
        "bce": binary_cross_entropy_with_logits(mask_logits.float(), truth),
        "dice": batch_dice_loss(mask_logits, truth),
        "image": binary_cross_entropy_with_logits(image_logits.float(), positive),
    }
    total = weights.bce * parts["bce"] + weights.dice * parts["dice"] + weights.image * parts["image"]
    return {**parts, "total": total}
