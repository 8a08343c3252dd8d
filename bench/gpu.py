"""`make bench-gpu`, on a machine with a CUDA GPU: the rows of the bench that need one. Writes bench/gpu.json, which `make
bench` puts into its table. Needs the extra `train` and a C++ compiler, and no server."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import training
from engines import MANIFEST, NETWORK, SIZE, ratios, times_of
from machine import machine_and_commit
from rows import ROOT, ROUNDS, Row, row

import segmenter
from segmenter.engine import Segmenter
from segmenter.model.artifact import load_artifact, write_artifact
from segmenter.model.network import build_network
from segmenter.model.predict import Predictor
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.settings import Settings

FILE = ROOT / "bench" / "gpu.json"
BATCH, FILMS = 16, 48


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no CUDA GPU here: bench/gpu.json stays as it is")
    with tempfile.TemporaryDirectory(prefix="segmenter-bench-") as scratch:
        rows: list[Row] = []
        for one in measured(Path(scratch)):
            print(one["name"], one["value"], one["unit"], one["spread"] or "", flush=True)
            rows.append(one)
    card = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
    about = machine_and_commit()
    FILE.write_text(json.dumps({"rows": rows, **about, "machine": card + about["machine"]}, indent=2) + "\n")


def measured(scratch: Path) -> Iterator[Row]:
    yield from forward(scratch)
    yield from whole_films()
    yield from training.measure(scratch, "cuda")


def forward(scratch: Path) -> Iterator[Row]:
    """A batch through the predictor, from the host and back, against the bare forward pass; and that against eager NCHW."""
    artifact = write_artifact(scratch / "model", [build_network(NETWORK).state_dict()], MANIFEST, "# bench\n")
    images = np.random.default_rng(0).random((BATCH, 1, SIZE, SIZE), np.float32)
    predictor = Predictor(artifact, "cuda")
    x = torch.from_numpy(images).cuda()
    last = artifact.networks()[0].cuda().to(memory_format=torch.channels_last)
    plain = artifact.networks()[0].cuda().half()

    @torch.inference_mode()
    def bare() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            last(x.contiguous(memory_format=torch.channels_last))
        torch.cuda.synchronize()

    @torch.inference_mode()
    def eager() -> None:
        plain(x.half())
        torch.cuda.synchronize()

    times = times_of({"predictor": lambda: predictor(images), "bare": bare, "eager": eager})
    speeds = [BATCH / seconds for seconds in times["predictor"]]
    ours, theirs = ratios(times["bare"], times["predictor"]), ratios(times["eager"], times["bare"])
    yield row("gpu: 512 images through the predictor", statistics.median(speeds), "images/s", "itself", "higher", rounds=speeds)
    yield row(
        "gpu: images/s through the predictor against the bare bf16 forward",
        statistics.median(ours), "ratio", "bare forward", "higher", 0.8, ours,
    )  # fmt: skip
    yield row(
        "gpu: bare bf16 channels_last against eager NCHW fp16",
        statistics.median(theirs), "ratio", "torch eager", "higher", 1.5, theirs,
    )  # fmt: skip


def whole_films() -> Iterator[Row]:
    """The shipped model on films of 2,500 x 2,048: decoding, placement, forward passes, mask, by one process."""
    demo = Path(segmenter.__file__).parent / "artifacts" / "demo"
    worker = Segmenter(load_artifact(demo), Settings(device="cuda"))
    films = [phantom_dataset(draw_phantom(1, shape=(2500, 2048), pneumothorax=True), kind="DX", bits=12)] * FILMS
    times = times_of({"films": lambda: worker.segment(films)}, rounds=ROUNDS)["films"]
    speeds = [FILMS / seconds for seconds in times]
    yield row("gpu: whole films, one process", statistics.median(speeds), "films/s", "itself", "higher", rounds=speeds)


if __name__ == "__main__":
    main()
