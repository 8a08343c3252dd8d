"""The film with the outline of the finding, as pixels of a secondary capture or as a PNG file, which is never sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.objects.outline import regions_on, sides_of
from segmenter.objects.sentences import WORDS, Words
from segmenter.values import Finding, Mask, Radiograph

_LONGEST_SIDE = 1024
FOUND = (255, 96, 64)  # sRGB
TRUTH = (64, 220, 120)
_PLAIN, _QUIET, _WARNING = (230, 230, 230), (170, 170, 170), (255, 205, 70)
_WIDTH_OF_SIZE_1 = 1250  # px of a picture whose capitals are 21 px high: some 70 letters a line
_SMALLEST = 0.4  # capitals of 9 px

Caption = tuple[str, tuple[int, int, int]]  # text and colour


def outline_png(finding: Finding, path: Path, *, demo: bool, truth: Mask | None = None) -> tuple[str, ...]:
    """Write the film, longer side at most 1,024 px, with the outline of the mask; `truth` (H, W) bool is drawn in green.

    The film has its stored orientation, with `captions` below it. Returns the sides of the regions. Raises OSError when `path`
    cannot be written, ValueError for a finding without a decision.
    """
    lines = captions(finding, WORDS["en"], demo=demo)
    if truth is not None:
        lines = [*lines, ("green: truth", _QUIET)]
    done, data = cv2.imencode(".png", picture(finding, _LONGEST_SIDE, lines, truth)[:, :, ::-1])
    if not done:
        raise OSError("the picture could not be encoded")
    Path(path).write_bytes(data.tobytes())
    return sides(finding)


def sides(finding: Finding) -> tuple[str, ...]:
    """The sides of the regions of a finding; () without any."""
    if finding.decision is None or finding.radiograph is None or not finding.decision.positive:
        return ()
    return sides_of(regions_on(finding.radiograph, finding.decision.mask))


def captions(finding: Finding, words: Words, *, demo: bool) -> list[Caption]:
    """The lines below a picture: the answer with side, probability, threshold and area; the demo notice; the notice; each note
    of the film. Raises ValueError for a finding without a decision."""
    if finding.decision is None or finding.radiograph is None:
        raise ValueError("only a film with a decision has a picture")
    colours = {"indeterminate": _WARNING, "done": FOUND if finding.decision.positive else _PLAIN}
    lines = [(words.answer(finding, sides(finding)), colours[finding.outcome])]
    if demo:
        lines.append((words.demo_notice, _WARNING))
    return [*lines, (words.notice, _QUIET), *((note.sentence, _WARNING) for note in finding.radiograph.notes)]


def picture(finding: Finding, longest_side: int, below: Sequence[Caption], truth: Mask | None = None) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB: the film in its stored orientation, longer side at most `longest_side` px, with the outline of the
    mask (and of `truth`, in green); below it the captions. Raises ValueError for a finding without a decision."""
    if finding.decision is None or finding.radiograph is None:
        raise ValueError("only a film with a decision has a picture")
    film = _canvas(finding.radiograph, longest_side)
    for mask, colour in ((truth, TRUTH), (finding.decision.mask, FOUND)):
        if mask is not None:
            draw_outline(film, mask, colour)
    return np.concatenate([film, _strip(film.shape[1], below)])


def _canvas(radiograph: Radiograph, longest_side: int) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB, of square pixels."""
    tall, wide = (one / min(radiograph.aspect) for one in radiograph.aspect)
    height, width = radiograph.image.shape[0] * tall, radiograph.image.shape[1] * wide
    scale = min(1.0, longest_side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = cv2.resize(radiograph.image, size, interpolation=cv2.INTER_AREA)
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def draw_outline(picture: NDArray[np.uint8], mask: Mask, colour: tuple[int, int, int]) -> None:
    """Draw the contour of a native mask (H, W) bool on a picture (h, w, 3) uint8 RGB, scaled with four bits of fraction so that
    it stays on the border of the mask's pixels."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    scale = np.array([picture.shape[1] / mask.shape[1], picture.shape[0] / mask.shape[0]])
    fine = [np.rint(((c + 0.5) * scale - 0.5) * 16).astype(np.int32) for c in contours]
    cv2.polylines(picture, fine, True, colour, 1, cv2.LINE_AA, 4)


def _strip(width: int, below: Sequence[Caption]) -> NDArray[np.uint8]:
    """(h, width, 3) uint8: the captions in letters that grow with the picture, each in as many lines as it needs."""
    size = max(_SMALLEST, width / _WIDTH_OF_SIZE_1)
    thick, margin = max(1, round(1.6 * size)), round(16 * size)

    def fits(text: str) -> bool:
        return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)[0][0] <= width - 2 * margin

    lines = [(line, colour) for text, colour in below for line in _wrapped(text, fits)]
    line = round(38 * size)
    strip = np.zeros((round(line * (len(lines) + 0.5)), width, 3), np.uint8)
    for row, (text, colour) in enumerate(lines, start=1):
        cv2.putText(strip, text, (margin, row * line), cv2.FONT_HERSHEY_SIMPLEX, size, colour, thick, cv2.LINE_AA)
    return strip


def _wrapped(text: str, fits: Callable[[str], bool]) -> list[str]:
    lines: list[str] = []
    for word in re.split(" (?!%)", text):  # a number keeps its unit
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
