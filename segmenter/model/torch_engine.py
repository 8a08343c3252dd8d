"""The networks in torch, on a CPU or GPU: the reference, and what training uses."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from segmenter.model.artifact import Artifact

GPU_BATCH = 8
GPU_PRECISION = torch.float16  # as many mantissa bits as TF32, in which a GPU computes float32 convolutions


class TorchMembers:
    """See `predict.Members`. The mean is computed on the device. A GPU computes in float16, and again in float32 when a result
    is not finite: float16 ends at 65,504."""

    def __init__(self, artifact: Artifact, device: str = "auto", threads: int = 0) -> None:
        if threads > 0:
            torch.set_num_threads(threads)
        self.manifest = artifact.manifest
        self.device = torch.device(_chosen(device))
        self.on_gpu = self.device.type == "cuda"
        self.films_at_once = GPU_BATCH if self.on_gpu else 1  # a batch gains nothing on a CPU
        self.networks = [_placed(network, self.device) for network in artifact.networks()]

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            x = torch.from_numpy(images).to(self.device)
            x = ((x - self.manifest.input.mean) / self.manifest.input.std).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, GPU_PRECISION, enabled=self.on_gpu):
                answer = self._fetched(self._mean(x))
            if self.on_gpu and not all(np.isfinite(part).all() for part in answer):
                answer = self._fetched(self._mean(x))
            return answer
        except torch.OutOfMemoryError as error:
            raise MemoryError("the device has not enough memory") from error

    def _fetched(self, answer: tuple[torch.Tensor, torch.Tensor]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both tensors on the host, copied at the same time through pinned memory."""
        probability, image = (part.to("cpu", non_blocking=True) for part in answer)
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        return probability[:, 0].numpy(), image.numpy()

    def _mean(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 1, S, S) -> probability (N, 1, S, S) and image probability (N,), averaged over all forward passes. Running sums:
        memory does not grow with the number of members."""
        probability, image = torch.zeros_like(x), x.new_zeros(len(x))
        mirrors = (False, True) if self.manifest.flips else (False,)
        for mirrored in mirrors:
            shown = x.flip(3) if mirrored else x
            for network in self.networks:
                probabilities, image_probabilities = self._forward(network, shown)
                probability += probabilities.flip(3) if mirrored else probabilities
                image += image_probabilities
        passes = len(mirrors) * len(self.networks)
        return probability / passes, image / passes

    def _forward(self, network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 1, S, S) -> probability (N, 1, S, S) and image probability (N,) of one member."""
        mask_logits, image_logits = (logits.float() for logits in network(x))
        # The sigmoid of an infinite logit is finite; infinity times zero is NaN, which is detected.
        return torch.sigmoid(mask_logits + 0 * mask_logits), torch.sigmoid(
            (image_logits + 0 * image_logits).flatten() / self.manifest.temperature
        )


def _placed(network: nn.Module, device: torch.device) -> nn.Module:
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from its stubs


def _chosen(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
