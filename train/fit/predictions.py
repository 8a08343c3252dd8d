"""A network's predictions for prepared films, on the model's grid: for validation and for calibration."""

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

LEVELS = 255  # a probability is stored as a byte: steps of .004, a quarter of the memory
MAX_STORED_SIDE = 512  # px: larger predictions are averaged down to this; 12,047 films at 1,024 px would need 25 GB


@dataclass(frozen=True)
class Predictions:
    """Of N films: `probability` (N, S, S) uint8, 255 = 1; `image_logits` (P, N) float, one row for each forward pass (each
    network, and with flips each on the mirrored film, too); `truth` (N, S, S) bool. S is the network's input size, at most
    MAX_STORED_SIDE."""

    rows: tuple[FilmRow, ...]
    probability: NDArray[np.uint8]
    image_logits: NDArray[np.float64]
    truth: NDArray[np.bool_]

    def image_probability(self, temperature: float = 1.0) -> NDArray[np.float64]:
        """(N,) in [0, 1]: the mean over the forward passes, as in the hospital."""
        return np.asarray((1 / (1 + np.exp(-self.image_logits / temperature))).mean(0), np.float64)

    @cached_property
    def true_px(self) -> NDArray[np.int64]:
        """(N,) number of pixels of the true mask on the grid."""
        return self.truth.sum((1, 2))

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(N,) by the native truth: a lesion that is too small for the grid counts, too."""
        return np.array([row.positive for row in self.rows])

    @property
    def size(self) -> int:
        """px of the stored grid."""
        return self.probability.shape[1]


def concatenated(parts: Sequence[Predictions]) -> Predictions:
    """Predictions for different films, one after the other."""
    rows = tuple(row for part in parts for row in part.rows)
    maps, truths = (np.concatenate([getattr(part, name) for part in parts]) for name in ("probability", "truth"))
    return Predictions(rows, maps, np.concatenate([part.image_logits for part in parts], axis=1), truths)


def averaged_predictions(parts: Sequence[Predictions]) -> Predictions:
    """The mean of several networks' predictions for the same films."""
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
    """Predict `rows` with `network`, in evaluation mode on `device`. `size`: px of its input; `flips`: mean with the mirrored
    film, as in the hospital; `quiet`: without a progress bar. Raises DataError for a size that was not prepared."""
    grid = data.grid_for(size)
    maps, logits, truths = [], [], []
    for first in tqdm(range(0, len(rows), batch), desc="predict", unit="batch", disable=quiet):
        image, truth = (torch.from_numpy(a)[:, None].to(device) for a in data.read(rows[first : first + batch], grid))
        image, truth = resize_pair(image.float() / 255, truth.float(), size)
        p, logits_of_passes = _both((image - mean) / std, network, flips)
        p, truth = resize_pair(p, truth, min(size, MAX_STORED_SIDE))
        maps.append((p * LEVELS).round().to(torch.uint8).cpu().numpy()[:, 0])
        logits.append(logits_of_passes.double().cpu().numpy())
        truths.append(truth.cpu().numpy()[:, 0] > 0.5)
    return Predictions(tuple(rows), np.concatenate(maps), np.concatenate(logits, axis=1), np.concatenate(truths))


def _both(x: Tensor, network: nn.Module, flips: bool) -> tuple[Tensor, Tensor]:
    """Probability (N, 1, S, S) and image logits (P, N)."""
    mask, decision = network(x.contiguous(memory_format=torch.channels_last))
    p, logits_of_passes = mask.float().sigmoid(), [decision.float().flatten()]
    if flips:
        mirrored, other = network(x.flip(3).contiguous(memory_format=torch.channels_last))
        p = (p + mirrored.float().sigmoid().flip(3)) / 2
        logits_of_passes.append(other.float().flatten())
    return p, torch.stack(logits_of_passes)
