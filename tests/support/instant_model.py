"""A model that answers in a moment, and films on which it always finds something: for tests of everything around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from small_film import SHAPE, picture, small_film
from tiny_network import SIZE, tiny_artifact

from segmenter.film.decode import decode
from segmenter.model.artifact import load_artifact
from segmenter.model.placement import Placement
from segmenter.model.predict import Predictor
from train.export.onnx_graph import add_graphs

MIN_SIDE_PX = 128


def film(number: int) -> Dataset:
    """Small, and different from every other number's in UIDs and pixels."""
    return small_film(seed=number, image=np.roll(picture(), number % SHAPE[0], axis=0))


def instant_model(folder: Path) -> Path:
    """An artifact with a random network and a threshold that a tenth of a film passes. Of the specks that it scatters only the
    largest count: each region costs a report some 20 ms."""
    network = tiny_artifact(folder / "network", flips=False)
    shown = decode(film(0))
    image = Placement.fit(shown.image.shape, SIZE, shown.turn).to_model(shown.image)
    (answer,) = Predictor(network, "cpu", threads=1)(image[None, None])
    threshold = float(np.quantile(answer.probability, 0.9))
    point = {"image_threshold": 0.0, "mask_threshold": threshold, "min_area_mm2": 100.0, "min_area_px": 28.0}
    tiny_artifact(folder / "model", flips=False, operating_points={"only": point})
    add_graphs(load_artifact(folder / "model"))  # a worker process then starts without torch
    return folder / "model"
