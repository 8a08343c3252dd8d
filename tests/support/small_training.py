"""A data set of ten phantoms and a recipe of seconds, for the tests of the workshop."""

from __future__ import annotations

from pathlib import Path

from train.data import phantoms, prepare
from train.data.dataset import PreparedSet

RECIPE = """
name = "tiny"
description = "a test"
seed = 1
mean = 0.44
std = 0.36
precision = "fp32"
[network]
architecture = "unet"
encoder = "efficientnet-b0"
in_channels = 1
image_head = true
decoder_channels = [32, 16, 16, 8, 8]
[[stages]]
size = 64
batch = 4
epochs = 2
steps = 3
rate = 1e-3
encoder_rate = 1e-3
positives = [0.8, 0.4]
[[stages]]
size = 96
crop = 64
batch = 4
epochs = 1
steps = 2
rate = 1e-3
encoder_rate = 1e-3
loss = {bce = 1.0, lovasz = 1.0, focal = 0.5}
[optimiser]
warmup_steps = 2
[augmentation]
detail = 0.3
blur = 0.5
dropout = 0.3
"""


def tiny_recipe(folder: Path, **changes: str) -> Path:
    """`changes`: text by the text that takes its place, e.g. {"steps = 3": "steps = 10"}."""
    text = RECIPE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


def tiny_data(folder: Path, count: int = 10, first_seed: int = 20_000) -> PreparedSet:
    """Not square, two folds, of 128 px at most."""
    phantoms.write_phantoms(phantoms.PhantomPlan(first_seed, count, 352, 0.5), folder / "raw", workers=1)
    prepare.prepare(prepare.PreparePlan(folder / "raw", folder / "data", sizes=(128, 64), folds=2))
    return PreparedSet(folder / "data")
