"""A model that answers in a moment and calls every small film positive, so that SEGs flow through a whole node."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from small_film import picture, small_film

NETWORK = {"architecture": "unet", "encoder": "efficientnet-b0", "in_channels": 1, "image_head": True,
           "decoder_channels": [32, 16, 16, 8, 8]}  # fmt: skip
SIZE = 64


def quick_film(number: int) -> Dataset:
    """Film `number`: its own UIDs and its own pixels."""
    image = picture()
    image[-8:, -8:] = (number % 97) / 97
    return small_film(seed=number, image=image)


def quick_settings(**more: str) -> dict[str, str]:
    """Environment of a node that runs the model, on one thread."""
    return {
        "SEGMENTER_SEGMENT__MODEL": str(quick_model()), "SEGMENTER_SEGMENT__DEVICE": "cpu", "SEGMENTER_SEGMENT__THREADS": "1",
        "OMP_NUM_THREADS": "1", **more,
    }  # fmt: skip


@functools.cache
def quick_model() -> Path:
    """The artifact's folder: a random network, its mask threshold where a sixth of a small film lies above."""
    import torch

    from segmenter.artifact import load_artifact, write_artifact
    from segmenter.decode import decode
    from segmenter.header import readable
    from segmenter.network import build_network
    from segmenter.placement import Placement
    from segmenter.predict import Predictor

    torch.manual_seed(0)
    weights = [build_network(NETWORK).state_dict()]
    folder = Path(tempfile.mkdtemp(prefix="quick-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def write(mask_threshold: float) -> None:
        point = {"image_threshold": 0.0, "mask_threshold": mask_threshold, "min_area_mm2": 0, "min_area_px": 0}
        manifest = {
            "name": "quick", "version": "0.1", "intended_use": "demo", "network": NETWORK,
            "input": {"size": SIZE, "mean": 0.5, "std": 0.25}, "temperature": 1.0, "flips": False, "operating_point": "only",
            "operating_points": {"only": point}, "metrics": {}, "data": {}, "recipe": "none", "seed": 0,
            "generator_sha256": "", "commit": "abc", "folds": [],
        }  # fmt: skip
        write_artifact(folder, weights, manifest, "# quick\n")

    write(0.5)
    radiograph = decode(readable(quick_film(1)))
    placement = Placement.fit(radiograph.image.shape, SIZE, radiograph.turn)
    (answer,) = Predictor(load_artifact(folder), device="cpu")(placement.to_model(radiograph.image)[None, None])
    write(round(float(np.quantile(answer.probability, 5 / 6)), 6))
    return folder
