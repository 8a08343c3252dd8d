"""Model grid in, probabilities out: owns the network, its device and its threads."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from segmenter.artifact import Artifact
from segmenter.values import Prediction


class Predictor:
    """A network in evaluation mode on one device. `device`: auto, cpu, cuda, cuda:N; `threads`: 0 leaves torch's choice.

    The answer of one film does not depend on the films beside it in the batch (BatchNorm uses stored statistics); it may
    differ in the last bits between batch sizes and devices.
    """

    def __init__(self, artifact: Artifact, device: str = "auto", threads: int = 0) -> None:
        if threads > 0:
            torch.set_num_threads(threads)
        self.manifest = artifact.manifest
        self.device = torch.device(_chosen(device))
        network = artifact.network().to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from its stubs

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.float32]) -> list[Prediction]:
        """`images` (N, 1, S, S) float32 in [0, 1], S of the manifest -> one Prediction per film."""
        size = self.manifest.input.size
        if images.ndim != 4 or images.shape[1:] != (1, size, size):
            raise ValueError(f"expected (N, 1, {size}, {size}), got {images.shape}")
        x = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).to(self.device)
        x = ((x - self.manifest.input.mean) / self.manifest.input.std).contiguous(memory_format=torch.channels_last)
        probability, image = self._forward(x)
        if self.manifest.flips:  # a mirrored film is another witness of the same lesion
            mirrored, image_mirrored = self._forward(x.flip(3))
            probability, image = (probability + mirrored.flip(3)) / 2, (image + image_mirrored) / 2
        maps, decisions = probability.cpu().numpy(), image.cpu().tolist()
        return [Prediction(m[0], float(d)) for m, d in zip(maps, decisions, strict=True)]

    def _forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 1, S, S) -> probability (N, 1, S, S) and image probability (N,)."""
        mask_logits, image_logits = self.network(x)
        image = torch.sigmoid(image_logits.float().flatten() / self.manifest.temperature)
        return torch.sigmoid(mask_logits.float()), image


def _chosen(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
