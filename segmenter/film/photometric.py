"""The polarity of a film (black or white lungs): by the header, and by the pixels where the header contradicts itself, is
silent or is wrong.

Measured error rates: docs/use/gate.md, `bench/polarity.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from segmenter.film.geometry import turned
from segmenter.film.header import text
from segmenter.film.intensity import Intensity
from segmenter.film.polarity import is_upright, polarity_score
from segmenter.indeterminate import IndeterminateCode
from segmenter.notes import NoteCode
from segmenter.values import Image, Turn

_SURE = 0.3  # score from which pixels overrule a header that does not contradict itself
_TELLING = 0.1  # score from which pixels decide where the header is ambiguous
_MARGIN = 0.1  # by which a turned film may look more like the other polarity


@dataclass(frozen=True)
class Photometric:
    """The polarity by the header. `inverted`: the lowest value is shown white; `ambiguous`: another element contradicts, or all
    are silent."""

    inverted: bool
    ambiguous: bool
    notes: tuple[NoteCode, ...] = ()

    def digest_part(self) -> str:
        """The part of the content digest; these words must not change."""
        return "divided" if self.ambiguous else str(self.inverted)


class PolarityCheck(Enum):
    """What the pixels tell about the polarity by the header."""

    KEEP = "as the header says"
    INVERT = "the other way round"
    UNCLEAR = "not to be told"


def photometric_of(dataset: Dataset, *, monochrome1: bool, intensity: Intensity | None) -> Photometric:
    """The polarity by PhotometricInterpretation and PresentationLUTShape: MONOCHROME1 and INVERSE mean the same, so do
    MONOCHROME2 and IDENTITY (PS3.3 C.8.11.3.1.2), and together they invert once. `intensity`, of a film that is not processed
    for display, goes before them: more X-rays are darker."""
    shape = text(dataset, "PresentationLUTShape").upper()
    declared = [monochrome1] if "MONOCHROME" in text(dataset, "PhotometricInterpretation").upper() else []
    declared += [shape == "INVERSE"] if shape in ("INVERSE", "IDENTITY") else []
    if intensity is not None and intensity.inverted is not None:
        return Photometric(intensity.inverted, any(one != intensity.inverted for one in declared))
    conflict = len(set(declared)) > 1
    silent = text(dataset, "PhotometricInterpretation").upper() in ("", "MONOCHROME") and not shape
    return Photometric(monochrome1, conflict or silent, (NoteCode.INVERSE_CONFLICT,) if conflict else ())


@dataclass(frozen=True)
class ResolvedPolarity:
    """`exchanged`: black and white must be exchanged, against the header. `unclear`: why the polarity is unknown."""

    notes: tuple[NoteCode, ...]
    exchanged: bool = False
    unclear: IndeterminateCode | None = None


def resolve_polarity(image: Image, film: NDArray[np.bool_] | None, turn: Turn, declared: Photometric) -> ResolvedPolarity:
    """The polarity by header and pixels. `image` (H, W) float32 in [0, 1] as the header has it, 0 where `film` (H, W) is
    False."""
    check = assess_polarity(image, film, turn, ambiguous=declared.ambiguous)
    if check is PolarityCheck.UNCLEAR:
        return ResolvedPolarity((*declared.notes, NoteCode.POLARITY_SUSPECT), unclear=IndeterminateCode.POLARITY)
    if check is PolarityCheck.KEEP:
        return ResolvedPolarity(declared.notes)
    changed = () if declared.ambiguous else (NoteCode.POLARITY_CHANGED,)
    return ResolvedPolarity((*declared.notes, *changed), exchanged=True)


def assess_polarity(image: Image, film: NDArray[np.bool_] | None, turn: Turn, *, ambiguous: bool) -> PolarityCheck:
    """Compare the pixels with the header. Against a header that is not `ambiguous` only a high score counts. A film lying on
    its side without declaring it seems to have bright lungs: it must not be inverted. Arguments as of `resolve_polarity`."""
    opposite = None
    if film is not None:  # black around the film would look like dark lungs in either polarity
        rows, columns = (np.flatnonzero(film.any(axis=axis)) for axis in (1, 0))
        shown = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        image, opposite = image[shown], invert(image[shown], film[shown])
    upright = turned(image, turn)
    score = polarity_score(upright)
    if opposite is not None:
        score = (score - polarity_score(turned(opposite, turn))) / 2
    if score >= 0 and not ambiguous:
        return PolarityCheck.KEEP
    sense = 1 if score >= 0 else -1
    elsewhere = max(-sense * polarity_score(np.rot90(upright, quarters)) for quarters in (1, 2, 3))
    lies = not is_upright(upright)
    if ambiguous:
        unclear = abs(score) < _TELLING or (lies and elsewhere > abs(score))
    else:
        unclear = abs(score) < _SURE or lies or elsewhere > abs(score) + _MARGIN
    return PolarityCheck.UNCLEAR if unclear else PolarityCheck.KEEP if sense > 0 else PolarityCheck.INVERT


def invert(image: Image, film: NDArray[np.bool_] | None) -> Image:
    """`image` (H, W) in [0, 1] with black and white exchanged; pixels outside `film` (H, W) stay black."""
    found = np.float32(1) - image
    if film is not None:
        found[~film] = 0
    return np.asarray(found, np.float32)
