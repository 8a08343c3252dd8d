"""The pieces of a step: batches, schedule, averaged weights. `fit` puts them in order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from train.augment import augment
from train.config import Augmentation, Optimiser


def batches(
    films: Sequence[np.ndarray], size: int, batch: int, how: Augmentation, seed: tuple[int, ...]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For ever: image and truth, both (batch, 1, size, size) float32 in [0, 1]. Every film once before any
    comes twice."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    while True:
        while len(order) < batch:
            order += rng.permutation(len(films)).tolist()
        chosen, order = order[:batch], order[batch:]
        pairs = [augment(films[i], size, how, rng) for i in chosen]
        image, truth = (torch.from_numpy(np.stack(column))[:, None] for column in zip(*pairs, strict=True))
        yield image, truth


def learning_rate(how: Optimiser, step: int, done: float) -> float:
    """Linear warm-up, then half a cosine down to the final rate. `done`: share of the whole run, 0..1."""
    warm = min(1.0, (step + 1) / max(how.warmup_steps, 1))
    falling = 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
    return warm * (how.final_learning_rate + (how.learning_rate - how.final_learning_rate) * falling)


class Average:
    """Exponential moving average of every floating point tensor of a network, BatchNorm statistics
    included."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.tensors = {name: t.detach().clone() for name, t in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))  # a young average forgets its random start
        for name, now in network.state_dict().items():
            if now.is_floating_point():
                self.tensors[name].lerp_(now, 1 - decay)
            else:
                self.tensors[name].copy_(now)
