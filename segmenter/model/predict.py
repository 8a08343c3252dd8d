"""Images on the model's grid -> probabilities, by one of two engines: torch, the reference, for GPUs and training; ONNX Runtime
for CPUs, twice as fast there and without torch (equal within 1e-3, tests/model/test_engines.py)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segmenter.errors import ArtifactError
from segmenter.model.artifact import Artifact
from segmenter.values import Prediction

ENGINES = ("auto", "torch", "onnx")
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, WSL: without them torch need not be imported


class Members(Protocol):
    """The network or networks of an artifact on one device. `films_at_once`: a batch that fills the device."""

    films_at_once: int

    def __call__(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(N, 1, S, S) float32 in [0, 1] -> probability (N, S, S) and image probability (N,), float32 in [0, 1], averaged over
        all forward passes: every member on the film and, with `flips` of the manifest, on the mirrored film. Raises
        MemoryError."""


class Predictor:
    """An artifact, ready for inference. `device`: auto, cpu, cuda, cuda:N; `threads`: 0 for all cores; `engine`: of ENGINES.

    The answer of one film does not depend on the films beside it in the batch (BatchNorm uses stored statistics); it may
    differ in the last bits between batch sizes, devices and engines.
    """

    def __init__(self, artifact: Artifact, device: str = "auto", threads: int = 0, engine: str = "auto") -> None:
        """Raises ArtifactError when the artifact cannot be run here."""
        self.size = artifact.manifest.input.size
        self.engine = engine_for(artifact, device, engine)
        self._members = _members(self.engine, artifact, device, threads)
        self.films_at_once = self._members.films_at_once

    def __call__(self, images: NDArray[np.float32]) -> list[Prediction]:
        """`images` (N, 1, S, S) float32 in [0, 1], S of the manifest -> one Prediction per film. Raises ValueError for
        another shape, MemoryError."""
        if images.ndim != 4 or images.shape[1:] != (1, self.size, self.size):
            raise ValueError(f"expected (N, 1, {self.size}, {self.size}), got {images.shape}")
        maps, decisions = self._members(np.ascontiguousarray(images, dtype=np.float32))
        return [Prediction(m, float(d)) for m, d in zip(maps, decisions, strict=True)]


def engine_for(artifact: Artifact, device: str = "auto", engine: str = "auto") -> str:
    """ "torch" or "onnx". `auto`: torch with a GPU; else ONNX Runtime when it is installed and the artifact has graphs; else
    torch. Imports torch only on a machine with a GPU.

    Raises ArtifactError with the remedy when the chosen engine is not available.
    """
    torch_here, onnx_here, graphs = _installed("torch"), _installed("onnxruntime"), bool(artifact.manifest.graphs)
    if engine == "auto":
        gpu = device.startswith("cuda") or (device == "auto" and torch_here and _gpu_answers())
        engine = "onnx" if not gpu and graphs and onnx_here else "torch"
        if not torch_here and not onnx_here:
            raise ArtifactError("neither onnxruntime nor torch is installed here; install the extra worker-cpu or worker")
    if engine == "torch" and not torch_here:
        why = "a device of CUDA needs torch" if graphs else f"{artifact.folder} has no graph for ONNX Runtime"
        raise ArtifactError(f"{why} and torch is not installed here; install the extra worker, or export the artifact again")
    if engine == "onnx" and not onnx_here:
        raise ArtifactError("segment.engine is onnx and onnxruntime is not installed here; install the extra worker-cpu")
    if engine == "onnx" and not graphs:
        raise ArtifactError(f"{artifact.folder} has no graph for ONNX Runtime; export it again, or set segment.engine = torch")
    if engine == "onnx" and device not in ("auto", "cpu"):
        raise ArtifactError(f"segment.engine onnx runs on the CPU and not on {device}; set segment.engine = torch")
    return engine


def _members(engine: str, artifact: Artifact, device: str, threads: int) -> Members:
    if engine == "onnx":
        from segmenter.model.onnx_engine import OnnxMembers

        return OnnxMembers(artifact, threads)
    from segmenter.model.torch_engine import TorchMembers  # takes seconds and hundreds of MB

    return TorchMembers(artifact, device, threads)


def _installed(package: str) -> bool:
    return find_spec(package) is not None


def _gpu_answers() -> bool:
    if not any(Path(file).exists() for file in _GPU_FILES):
        return False
    import torch

    return bool(torch.cuda.is_available())
