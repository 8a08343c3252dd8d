"""A film as the bytes of a Part 10 file whose pixels are put together by hand: items, offset tables, and what stands behind."""

from __future__ import annotations

import struct
from copy import deepcopy
from io import BytesIO
from pathlib import Path

import numpy as np
from film_parts import ENCODERS, UNDEFINED, gdcm_encoded, item
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian
from small_film import small_film

from segmenter.film.decode import decode
from segmenter.film.parse import parse
from segmenter.values import Radiograph

SHAPE = (168, 144)
END = bytes.fromhex("feffdde000000000")
LOSSLESS = ("RLE", "JPEG lossless", "JPEG-LS", "JPEG 2000")


def base(**how) -> Dataset:
    return small_film(SHAPE, **{"kind": "CR", "bits": 12, **how})


def stored(dataset: Dataset) -> np.ndarray:
    """(H, W) of an uncompressed film of one sample."""
    kind = np.uint8 if dataset.BitsAllocated == 8 else np.uint16
    return np.frombuffer(dataset.PixelData, kind, dataset.Rows * dataset.Columns).reshape(dataset.Rows, dataset.Columns)


def put(dataset: Dataset, cells: np.ndarray) -> Dataset:
    dataset.PixelData = np.ascontiguousarray(cells).tobytes()
    return dataset


def stream_of(dataset: Dataset, encoder: str, folder: Path) -> bytes:
    return next(generate_frames(gdcm_encoded(dataset, ENCODERS[encoder][1], folder).PixelData, number_of_frames=1))


def part10(dataset: Dataset, syntax: str = ExplicitVRLittleEndian, pixels: bytes | None = None, *, items: bool = True) -> bytes:
    """The file, its PixelData (explicit VR) these bytes: of undefined length when they are `items`, else with their length."""
    dataset = deepcopy(dataset)
    if pixels is not None:
        del dataset.PixelData
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.set_original_encoding(False, True, dataset._character_set)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    if pixels is None:
        return buffer.getvalue()
    head = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED if items else len(pixels))
    return buffer.getvalue() + head + pixels


def whole(stream: bytes) -> bytes:
    """One item, with an empty offset table before it and the delimiter behind it."""
    return item(b"") + item(stream + b"\0" * (len(stream) % 2)) + END


def pieces(stream: bytes, size: int = 512) -> bytes:
    return b"".join(item(stream[at : at + size]) for at in range(0, len(stream), size))


def read(file: bytes) -> Radiograph:
    return decode(parse(file))
