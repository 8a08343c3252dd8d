"""The forward pass: our CPU engine beside torch, ONNX Runtime, OpenVINO and torch.compile, and as a share of what the cores can
multiply."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rows import ROUNDS, Row, row

from segmenter.model.artifact import Artifact, write_artifact
from segmenter.model.network import build_network
from segmenter.model.predict import Predictor
from train.export.onnx_graph import add_graphs

SIZE = 512
GFLOP = 36.7  # of one image of 512 x 512 px through U-Net and EfficientNet-B4, a multiplication and an addition counted as two
NETWORK = {"architecture": "unet", "encoder": "efficientnet-b4", "in_channels": 1, "image_head": True}
MANIFEST = {
    "name": "bench", "version": "1", "intended_use": "demo", "network": NETWORK,
    "input": {"size": SIZE, "mean": 0.5, "std": 0.25},
    "temperature": 1.0, "flips": False, "operating_point": "only",
    "operating_points": {"only": {"image_threshold": 0.5, "mask_threshold": 0.5, "min_area_mm2": 0, "min_area_px": 0}},
    "metrics": {}, "data": {}, "recipe": "none", "seed": 0, "generator_sha256": "", "commit": "", "folds": [],
}  # fmt: skip
Forward = Callable[[], object]


def engines(scratch: Path) -> Iterator[Row]:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    artifact = add_graphs(write_artifact(scratch / "model", [build_network(NETWORK).state_dict()], MANIFEST, "# bench\n"))
    image = np.random.default_rng(0).random((1, 1, SIZE, SIZE), np.float32)
    forwards: dict[str, Forward] = {
        "ours": _ours(artifact, image, "onnx"), "torch": _ours(artifact, image, "torch"), **_peers(artifact, image)
    }  # fmt: skip
    times = times_of(forwards)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    ours, peers = medians["ours"], [name for name in times if name not in ("ours", "torch")]
    best = min(peers, key=lambda name: medians[name])
    yield row("inference: one 512 image, CPU", ours, "s", "itself", "lower", rounds=times["ours"])
    eager = ratios(times["torch"], times["ours"])
    yield row(
        "inference: torch eager's seconds against ours", medians["torch"] / ours, "ratio", "torch eager", "higher", 2, eager
    )
    for name in peers:
        rounds = ratios(times["ours"], times[name])
        yield row(f"inference: our seconds against {name}", ours / medians[name], "ratio", name, "lower", rounds=rounds)
    rounds = ratios(times["ours"], times[best])
    yield row("inference: our seconds against the best peer", ours / medians[best], "ratio", best, "lower", 1.05, rounds)
    peak = _sgemm_gflops(torch)
    yield row(
        "inference: share of the cores' sgemm peak", GFLOP / ours / peak, "ratio", f"sgemm, {peak:.0f} GFLOP/s", "higher", 0.5
    )


def _ours(artifact: Artifact, image: np.ndarray, engine: str) -> Forward:
    predictor = Predictor(artifact, "cpu", engine=engine)
    return lambda: predictor(image)


def _peers(artifact: Artifact, image: np.ndarray) -> dict[str, Forward]:
    """The bare network in other engines, as their documentation says; what is not installed is left out."""
    import onnxruntime as ort
    import torch

    [graph] = artifact.graph_paths
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    found: dict[str, Forward] = {"ONNX Runtime": lambda: session.run(None, {"image": image})}
    try:
        import openvino
    except ImportError:
        print("  openvino is not installed (extra bench): without it")
    else:
        request = openvino.Core().compile_model(str(graph), "CPU", {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
        found["OpenVINO"] = lambda: request.infer([image])
    if shutil.which("c++"):
        [network] = artifact.networks()
        compiled = torch.compile(network.to(memory_format=torch.channels_last))
        x = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)

        @torch.inference_mode()
        def forward() -> object:
            return compiled(x)

        found["torch.compile"] = forward
    else:
        print("  no C++ compiler: without torch.compile")
    return found


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def times_of(forwards: dict[str, Forward], rounds: int = 2 * ROUNDS) -> dict[str, list[float]]:
    """Seconds of each, in alternating rounds after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in forwards}
    for number in range(rounds + 1):
        for name, forward in forwards.items():
            started = time.perf_counter()
            forward()
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def _sgemm_gflops(torch) -> float:
    side = 2048
    a, b = torch.rand(side, side), torch.rand(side, side)
    seconds = statistics.median(times_of({"sgemm": lambda: a @ b})["sgemm"])
    return 2 * side**3 / seconds / 1e9
