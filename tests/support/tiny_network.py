"""A random network of 64 px as an artifact: what an answer is does not matter, that there is one does."""

import numpy as np
import torch

from segmenter.model.artifact import write_artifact
from segmenter.model.network import build_network

SIZE = 64
NETWORK = {"architecture": "unet", "encoder": "efficientnet-b0", "in_channels": 1, "image_head": True,
           "decoder_channels": [32, 16, 16, 8, 8]}  # fmt: skip
MANIFEST = {
    "name": "tiny", "version": "0.1", "intended_use": "demo", "network": NETWORK,
    "input": {"size": SIZE, "mean": 0.5, "std": 0.25}, "temperature": 2.0, "flips": True, "operating_point": "only",
    "operating_points": {"only": {"image_threshold": 0.5, "mask_threshold": 0.5, "min_area_mm2": 10, "min_area_px": 4}},
    "metrics": {}, "data": {}, "recipe": "none", "seed": 0, "generator_sha256": "", "commit": "abc", "folds": [],
}  # fmt: skip


def tiny_artifact(folder, seeds=(0,), **changes):
    """An artifact of one random network for each seed."""
    return write_artifact(folder, [tiny_network(seed).state_dict() for seed in seeds], {**MANIFEST, **changes}, "# tiny\n")


def tiny_network(seed):
    torch.manual_seed(seed)
    return build_network(NETWORK)


def images(count):
    return np.random.default_rng(3).random((count, 1, SIZE, SIZE), np.float32)
