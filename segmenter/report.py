"""A picture for people: the film with the outline of what was found. Never sent; it lies beside the DICOM objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.values import Decision, Finding, Mask, Radiograph
from segmenter.words import WORDS

_LONGEST_SIDE = 1024
_FOUND = (255, 96, 64)  # sRGB
_TRUTH = (64, 220, 120)
_PLAIN, _QUIET = (230, 230, 230), (150, 150, 150)


def outline_png(finding: Finding, path: Path, truth: Mask | None = None) -> None:
    """Write the film, longer side at most 1,024 px, with the outline of the mask; `truth` (H, W) bool is drawn in green.

    The film lies as it is stored. Below it stand the answer and a notice. Raises OSError when `path` can not be written,
    ValueError for a finding without a decision.
    """
    said, decision, radiograph = WORDS["en"], finding.decision, finding.radiograph
    if decision is None or radiograph is None:
        raise ValueError("only a film with a decision has a picture")
    answered = said.answer(finding) + ("   green: truth" if truth is not None else "")
    done, data = cv2.imencode(".png", picture(radiograph, decision, _LONGEST_SIDE, (answered, said.notice), truth)[:, :, ::-1])
    if not done:
        raise OSError("the picture could not be encoded")
    Path(path).write_bytes(data.tobytes())


def picture(
    radiograph: Radiograph, decision: Decision, longest_side: int, captions: Sequence[str], truth: Mask | None = None
) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB: the film as it is stored, longer side at most `longest_side` px, with the outline of the mask (and
    of `truth`, in green); below it the captions, the first one in the colour of the outline."""
    film = _canvas(radiograph, longest_side)
    for mask, colour in ((truth, _TRUTH), (decision.mask if decision.positive else None, _FOUND)):
        if mask is not None:
            _draw(film, mask, colour)
    return np.concatenate([film, _caption(film.shape[1], captions, decision.positive)])


def _canvas(radiograph: Radiograph, longest_side: int) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB, of square pixels."""
    tall, wide = (one / min(radiograph.aspect) for one in radiograph.aspect)
    height, width = radiograph.image.shape[0] * tall, radiograph.image.shape[1] * wide
    scale = min(1.0, longest_side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = cv2.resize(radiograph.image, size, interpolation=cv2.INTER_AREA)
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def _draw(picture: NDArray[np.uint8], mask: Mask, colour: tuple[int, int, int]) -> None:
    """The contour of the native mask, scaled with four bits of fraction so that it stays on the border of its pixels."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    scale = np.array([picture.shape[1] / mask.shape[1], picture.shape[0] / mask.shape[0]])
    fine = [np.rint(((c + 0.5) * scale - 0.5) * 16).astype(np.int32) for c in contours]
    cv2.polylines(picture, fine, True, colour, 1, cv2.LINE_AA, 4)


def _caption(width: int, captions: Sequence[str], positive: bool) -> NDArray[np.uint8]:
    """(h, width, 3) uint8: one line of text per caption, small enough for the longest one."""
    size = min(0.6, width / 900)
    line = round(40 * size)
    strip = np.zeros((round(line * (len(captions) + 0.3)), width, 3), np.uint8)
    for row, words in enumerate(captions, start=1):
        colour = (_FOUND if positive else _PLAIN) if row == 1 else _QUIET
        cv2.putText(strip, words, (round(12 * size), row * line), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
    return strip
