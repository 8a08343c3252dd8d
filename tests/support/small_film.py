"""Small synthetic films with known pixels, as a modality would send them: non-square, so that a swapped axis shows."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.values import Phantom

SHAPE = (300, 264)


def picture(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """(H, W) float32 [0, 1]: two dark lungs in a bright body, darker towards the top and brighter towards the left, so
    that no turned or mirrored copy equals another."""
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array(shape).reshape(2, 1, 1)
    body = 0.75 - 0.2 * y - 0.1 * x
    for centre in (0.28, 0.72):
        body -= 0.45 * np.exp(-(((x - centre) / 0.12) ** 4) - ((y - 0.45) / 0.3) ** 4)
    return np.clip(body, 0, 1).astype(np.float32)


def phantom(shape: tuple[int, int] = SHAPE, image: np.ndarray | None = None, seed: int = 7) -> Phantom:
    truth = np.zeros(shape, bool)
    truth[shape[0] // 5 : shape[0] // 3, shape[1] // 6 : shape[1] // 3] = True
    return Phantom(seed, picture(shape) if image is None else image, truth, 0.4, ("apex",), "left", frozenset())


def small_film(shape: tuple[int, int] = SHAPE, *, seed: int = 7, image: np.ndarray | None = None, **how) -> Dataset:
    """`film` of a small phantom, read back from bytes: its elements are raw, like those of a received file."""
    return read_back(phantom_dataset(phantom(shape, image, seed), **how))


def read_back(dataset: Dataset) -> Dataset:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return dcmread(BytesIO(buffer.getvalue()))


def write(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def raw(film: Dataset, **values: bytes) -> Dataset:
    """`film` with elements that hold exactly these bytes, also when it is written."""
    for keyword, value in values.items():
        tag = Tag(keyword)
        assert len(value) % 2 == 0, keyword
        film[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    film.set_original_encoding(False, True, film._character_set)  # else pydicom converts them
    return film


def stored_bytes(path: Path, keyword: str) -> bytes | None:
    element = dcmread(path).get_item(keyword)
    return None if element is None else (element.value or b"")
