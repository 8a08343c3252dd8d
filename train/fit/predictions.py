"""What a network says of prepared films, on the grid: for the judgement of an epoch and for calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from train.data.dataset import FilmRow, PreparedSet
from train.fit.augment import resize_pair

LEVELS = 255  # a probability is kept as a byte: steps of .004, a quarter of the memory
MAX_STORED_SIDE = 512  # px: larger answers are averaged down to this; 12,047 films at 1,024 would be 25 GB


@dataclass(frozen=True)
class Predictions:
    """Of N films: `probability` (N, S, S) uint8, 255 = 1; `image_logits` (W, N) float, one row for each witness (network, and
    each once more on the mirrored film with flips); `truth` (N, S, S) bool. S is the network's input size, at most KEPT_AT."""

    rows: tuple[FilmRow, ...]
    probability: NDArray[np.uint8]
    image_logits: NDArray[np.float64]
    truth: NDArray[np.bool_]

    def image_probability(self, temperature: float = 1.0) -> NDArray[np.float64]:
        """(N,): the mean of what the witnesses say, as it is served."""
        return np.asarray((1 / (1 + np.exp(-self.image_logits / temperature))).mean(0), np.float64)

    @cached_property
    def true_px(self) -> NDArray[np.int64]:
        """(N,) pixels of the grid that are true."""
        return self.truth.sum((1, 2))

    @property
    def positive(self) -> NDArray[np.bool_]:
        """By the native truth: a lesion may be too small for the grid and is missed all the same."""
        return np.array([row.positive for row in self.rows])

    @property
    def size(self) -> int:
        return self.probability.shape[1]


def concatenated(parts: Sequence[Predictions]) -> Predictions:
    """Answers about different films, one after the other."""
    rows = tuple(row for part in parts for row in part.rows)
    maps, truths = (np.concatenate([getattr(part, name) for part in parts]) for name in ("probability", "truth"))
    return Predictions(rows, maps, np.concatenate([part.image_logits for part in parts], axis=1), truths)


def averaged_predictions(parts: Sequence[Predictions]) -> Predictions:
    """The mean of several networks' answers about the same films."""
    if len(parts) == 1:
        return parts[0]
    maps = np.zeros(parts[0].probability.shape, np.float32)
    for part in parts:
        maps += part.probability
    logits = np.concatenate([part.image_logits for part in parts])
    return Predictions(parts[0].rows, np.round(maps / len(parts)).astype(np.uint8), logits, parts[0].truth)


@torch.inference_mode()
def predict_films(
    network: nn.Module,
    data: PreparedSet,
    rows: Sequence[FilmRow],
    *,
    size: int,
    mean: float,
    std: float,
    flips: bool,
    device: torch.device,
    batch: int = 8,
    quiet: bool = True,
) -> Predictions:
    """`network` in evaluation mode on `device`; `flips`: mean with the mirrored film, as it is served."""
    grid = data.grid_for(size)
    maps, logits, truths = [], [], []
    for first in tqdm(range(0, len(rows), batch), desc="predict", unit="batch", disable=quiet):
        image, truth = (torch.from_numpy(a)[:, None].to(device) for a in data.read(rows[first : first + batch], grid))
        image, truth = resize_pair(image.float() / 255, truth.float(), size)
        p, spoken = _both((image - mean) / std, network, flips)
        p, truth = resize_pair(p, truth, min(size, MAX_STORED_SIDE))
        maps.append((p * LEVELS).round().to(torch.uint8).cpu().numpy()[:, 0])
        logits.append(spoken.double().cpu().numpy())
        truths.append(truth.cpu().numpy()[:, 0] > 0.5)
    return Predictions(tuple(rows), np.concatenate(maps), np.concatenate(logits, axis=1), np.concatenate(truths))


def _both(x: Tensor, network: nn.Module, flips: bool) -> tuple[Tensor, Tensor]:
    """Probability (N, 1, S, S) and image logits (W, N)."""
    mask, decision = network(x.contiguous(memory_format=torch.channels_last))
    p, spoken = mask.float().sigmoid(), [decision.float().flatten()]
    if flips:
        mirrored, other = network(x.flip(3).contiguous(memory_format=torch.channels_last))
        p = (p + mirrored.float().sigmoid().flip(3)) / 2
        spoken.append(other.float().flatten())
    return p, torch.stack(spoken)
