"""Run-length encoding of SIIM-ACR masks: "gap run gap run ...", relative and 0-based, down the columns.

Each gap counts from the end of the run before it. Decoded flat, the pixels go down the first column, then the
second: column-major (https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation, "Evaluation").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EMPTY = "-1"


class RleError(ValueError):
    """The text is not a run-length encoding of a mask of this shape; the message tells why."""


def decode(text: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask `shape` (H, W) bool. "-1" or nothing is an empty mask.

    Raises RleError for a word that is no number, an odd number of words, a negative number, or runs beyond the film.
    """
    words = text.split()
    if words in ([], [EMPTY]):
        return np.zeros(shape, bool)
    try:
        lengths = np.array(words, dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise RleError("a word is no whole number") from error
    if len(lengths) % 2 or lengths.min() < 0:
        raise RleError("gaps and runs come in pairs, none of them negative")
    pixels = shape[0] * shape[1]
    if lengths.max() > pixels or lengths.sum() > pixels:
        raise RleError(f"the runs end at pixel {lengths.sum()}, the film of {shape[1]} x {shape[0]} px has {pixels}")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.concatenate([flat, np.zeros(pixels - len(flat), bool)]).reshape(shape[::-1]).T


def encode(mask: NDArray[np.bool_]) -> str:
    """The inverse of `decode`: the text of a mask (H, W) bool; "-1" for an empty mask."""
    if not mask.any():
        return EMPTY
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])  # start, end, start, end ...
    return " ".join(map(str, np.diff(edges, prepend=0)))


def union(texts: tuple[str, ...], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The union (H, W) bool of the masks of one film, one text for each annotated region. Raises RleError."""
    mask = np.zeros(shape, bool)
    for text in texts:
        mask |= decode(text, shape)
    return mask
