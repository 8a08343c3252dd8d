"""The networks in ONNX Runtime, on the CPU. A graph is the network of one member, for one film: its weights are the member's
safetensors file, which the graph names as external data (`train/export/onnx_graph.py`).

A film needs one forward pass for each member, with flips two. With at least as many passes as threads, each thread computes
whole passes (10 % faster than all threads on one pass after the other, and no thread spins while it waits for the others); with
fewer, all threads share each pass.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from segmenter.errors import ArtifactError
from segmenter.model.artifact import Artifact

MAX_BATCH = 8  # films: an urgent film waits for the batch before it


class OnnxMembers:
    """See `predict.Members`."""

    def __init__(self, artifact: Artifact, threads: int = 0) -> None:
        """Raises ArtifactError when a graph cannot be run."""
        self._manifest = artifact.manifest
        self._paths = artifact.graph_paths
        self._mirrors = (False, True) if artifact.manifest.flips else (False,)
        # The runtime's own choice counts the machine's cores, not those that this process may use.
        self._threads = threads or len(os.sched_getaffinity(0))
        self.films_at_once = min(MAX_BATCH, max(1, self._threads // (len(self._mirrors) * len(self._paths))))
        self._pool = ThreadPoolExecutor(self._threads, "forward")
        # An unusable graph is an error here, not at the first film.
        _ = self._narrow if len(self._mirrors) * len(self._paths) >= self._threads else self._wide

    @cached_property
    def _wide(self) -> list[ort.InferenceSession]:
        """One session for each member, each on all threads."""
        return [_session(path, self._threads) for path in self._paths]

    @cached_property
    def _narrow(self) -> list[ort.InferenceSession]:
        """One session for each member, each on the calling thread; several threads may call one."""
        return [_session(path, 1) for path in self._paths]

    def __call__(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x = (images - np.float32(self._manifest.input.mean)) / np.float32(self._manifest.input.std)
        passes = [(m, n, mirrored) for mirrored in self._mirrors for m in range(len(self._paths)) for n in range(len(x))]
        narrow = len(passes) >= self._threads
        sessions = self._narrow if narrow else self._wide

        def forward(one: tuple[int, int, bool]) -> tuple[NDArray[np.float32], np.float32]:
            member, film, mirrored = one
            probabilities, image_probability = self._forward(sessions[member], x[film][:, :, ::-1] if mirrored else x[film])
            return probabilities[:, ::-1] if mirrored else probabilities, image_probability

        probability, image = np.zeros_like(x[:, 0]), np.zeros(len(x), np.float32)
        share = np.float32(1 / (len(self._mirrors) * len(self._paths)))
        results = (self._pool.map if narrow else map)(forward, passes)
        for (_, film, _), (probabilities, image_probability) in zip(passes, results, strict=True):
            probability[film] += probabilities
            image[film] += image_probability
        return probability * share, image * share

    def _forward(self, session: ort.InferenceSession, film: NDArray[np.float32]) -> tuple[NDArray[np.float32], np.float32]:
        """(1, S, S) -> probability (S, S) and image probability of one member."""
        try:
            mask_logits, image_logits = session.run(None, {"image": np.ascontiguousarray(film[None])})
        except Exception as error:
            if "allocate" in str(error):  # ONNX Runtime has no exception class for it
                raise MemoryError("ONNX Runtime has not enough memory") from error
            raise
        return _sigmoid(mask_logits[0, 0]), _sigmoid(image_logits / np.float32(self._manifest.temperature))[0, 0]


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # its warnings are about graph optimisation
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between films the cores belong to others
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(f"{path} cannot be run by ONNX Runtime ({error}); export the artifact again") from error


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and its share 0
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
