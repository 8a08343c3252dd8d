"""The networks in ONNX Runtime, on the CPU. A graph is the network of one member, for one film: its weights are the member's
safetensors file, which the graph names as external data (`train/graph.py`)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from segmenter.artifact import Artifact
from segmenter.errors import ArtifactError


class OnnxMembers:
    """See `predict.Members`."""

    def __init__(self, artifact: Artifact, threads: int = 0) -> None:
        """Raises ArtifactError when a graph can not be run."""
        self.manifest = artifact.manifest
        self.sessions = [_session(path, threads) for path in artifact.graph_paths]

    def __call__(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x = (images - np.float32(self.manifest.input.mean)) / np.float32(self.manifest.input.std)
        probability, image = np.zeros_like(x[:, 0]), np.zeros(len(x), np.float32)
        mirrors = (False, True) if self.manifest.flips else (False,)
        for mirrored in mirrors:  # a mirrored film is another witness of the same lesion
            for session in self.sessions:
                for n, film in enumerate(x):  # a batch gains nothing on a CPU
                    seen, decided = self._forward(session, film[:, :, ::-1] if mirrored else film)
                    probability[n] += seen[:, ::-1] if mirrored else seen
                    image[n] += decided
        share = np.float32(1 / (len(mirrors) * len(self.sessions)))
        probability *= share
        image *= share
        return probability, image

    def _forward(self, session: ort.InferenceSession, film: NDArray[np.float32]) -> tuple[NDArray[np.float32], np.float32]:
        """(1, S, S) -> probability (S, S) and image probability of one member."""
        try:
            mask_logits, image_logits = session.run(None, {"image": np.ascontiguousarray(film[None])})
        except Exception as error:
            if "allocate" in str(error):  # the runtime has no class of its own for it
                raise MemoryError("ONNX Runtime has not enough memory") from error
            raise
        return _sigmoid(mask_logits[0, 0]), _sigmoid(image_logits / np.float32(self.manifest.temperature))[0, 0]


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # its warnings are about graph optimisation
    # Its own choice counts the machine's cores, not those that this process may use.
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between films the cores belong to others
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(f"{path} can not be run by ONNX Runtime ({error}); export the artifact again") from error


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and its share 0
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
