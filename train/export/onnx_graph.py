"""The networks of an artifact as ONNX graphs, for workers without torch.

A graph contains no weights: it refers to those in the member's safetensors file as external data, so that they are stored once.
Weights stored as float16 are cast to float32 in the graph, as when torch loads them. A graph is for one film (1, 1, S, S): with
all shapes known the runtime folds paddings and sizes away.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from segmenter.errors import ArtifactError
from segmenter.model.artifact import Artifact, with_graphs
from segmenter.model.predict import Predictor

if TYPE_CHECKING:
    import onnx

OPSET = 17
OUTPUTS = ["mask_logits", "image_logits"]
MAX_DIFFERENCE = 1e-3  # probabilities of the two engines may differ by so much
_KINDS = {"F32": "FLOAT", "F16": "FLOAT16"}


def add_graphs(artifact: Artifact) -> Artifact:
    """Add a graph for each member to the artifact, and check that both engines agree. Raises ArtifactError when they do not."""
    graphs = [
        graph_of(network, artifact.manifest.input.size, path)
        for network, path in zip(artifact.networks(), artifact.weights_paths, strict=True)
    ]
    made = with_graphs(artifact, graphs)
    check_engines_agree(made)
    return made


def check_engines_agree(artifact: Artifact) -> float:
    """The largest difference of the two engines' probabilities on random films. Raises ArtifactError above MAX_DIFFERENCE."""
    size = artifact.manifest.input.size
    films = np.random.default_rng(0).random((2, 1, size, size), np.float32)
    answers = [Predictor(artifact, "cpu", engine=engine)(films) for engine in ("torch", "onnx")]
    differences = [
        max(float(np.abs(a.probability - b.probability).max()), abs(a.image_probability - b.image_probability))
        for a, b in zip(*answers, strict=True)
    ]
    if not max(differences) <= MAX_DIFFERENCE:  # NaN is not close
        raise ArtifactError(
            f"{artifact.folder}: graph and network differ by {max(differences):.2g}; do not serve this artifact"
        )
    return max(differences)


def graph_of(network: torch.nn.Module, size: int, weights: Path) -> bytes:
    """A serialized ONNX model of `network` for (1, 1, size, size) float32, with its weights in the safetensors file `weights`
    of the same folder. Raises ArtifactError when a tensor of the graph is not in the file."""
    import onnx

    buffer: Any = io.BytesIO()  # documented, and not in the exporter's types
    # PRESERVE: else the exporter folds BatchNorm into new weights, which are in no file. The runtime folds it at start.
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about shapes that are constants here, and about the age of the exporter
        torch.onnx.export(
            network.eval(), (torch.zeros(1, 1, size, size),), buffer, dynamo=False, input_names=["image"], output_names=OUTPUTS,
            do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE, opset_version=OPSET,
        )  # fmt: skip
    model = onnx.load_model_from_string(buffer.getvalue())
    _refer(model, weights)
    return bytes(model.SerializeToString())


def _refer(model: onnx.ModelProto, weights: Path) -> None:
    """Replace every weight in the graph by a reference into the file."""
    from onnx import TensorProto, helper

    layout, casts = _layout(weights), []
    strange = [tensor.name for tensor in model.graph.initializer if tensor.name not in layout]
    if strange:
        raise ArtifactError(
            f"{weights}: {strange[:3]} of the graph are not in it; is this torch newer than train/export/onnx_graph.py?"
        )
    for tensor in model.graph.initializer:
        kind, begin, length = layout[tensor.name]
        name, half = tensor.name, kind == "F16"
        tensor.CopyFrom(
            TensorProto(
                name=f"{name}.half" if half else name, dims=tensor.dims, data_type=TensorProto.DataType.Value(_KINDS[kind]),
                data_location=TensorProto.EXTERNAL,
            )
        )  # fmt: skip
        for key, value in (("location", weights.name), ("offset", begin), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        if half:
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    for node in nodes:
        node.ClearField("doc_string")  # stack traces with paths of this machine
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _layout(weights: Path) -> dict[str, tuple[str, int, int]]:
    """(dtype, first byte in the file, bytes) of each tensor: safetensors is a length (u64), a JSON header, and the data."""
    with open(weights, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return {
        name: (one["dtype"], 8 + length + one["data_offsets"][0], one["data_offsets"][1] - one["data_offsets"][0])
        for name, one in header.items()
        if name != "__metadata__"
    }
