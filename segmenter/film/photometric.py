"""Which way round the greys are: what the header says of it, and what the pixels say where the header contradicts itself, says
nothing, or is wrong.

Figures of the judgement: docs/use/gate.md, `bench/polarity.py`.
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

_SURE = 0.3  # of `polarity`, for pixels against a header that does not contradict itself
_TELLING = 0.1  # for pixels where the header is divided or silent
_MARGIN = 0.1  # by which a film may look more like the other polarity when it is turned


@dataclass(frozen=True)
class Photometric:
    """What the header says. `inverted`: the lowest value is shown white; `divided`: another element says the opposite, or
    none says anything."""

    inverted: bool
    ambiguous: bool
    notes: tuple[NoteCode, ...] = ()

    def digest_part(self) -> str:
        """For the content digest."""
        return "divided" if self.ambiguous else str(self.inverted)


class PolarityCheck(Enum):
    KEEP = "as the header says"
    INVERT = "the other way round"
    UNCLEAR = "not to be told"


def photometric_of(dataset: Dataset, *, monochrome1: bool, intensity: Intensity | None) -> Photometric:
    """MONOCHROME1 and PresentationLUTShape INVERSE are two words for the same thing, MONOCHROME2 and IDENTITY too (PS3.3
    C.8.11.3.1.2): together they invert once. Of a film that is not processed, `intensity` says it: more X-rays are darker."""
    shape = text(dataset, "PresentationLUTShape").upper()
    said = [monochrome1] if "MONOCHROME" in text(dataset, "PhotometricInterpretation").upper() else []
    said += [shape == "INVERSE"] if shape in ("INVERSE", "IDENTITY") else []
    if intensity is not None and intensity.inverted is not None:
        return Photometric(intensity.inverted, any(one != intensity.inverted for one in said))
    conflict = len(set(said)) > 1
    silent = text(dataset, "PhotometricInterpretation").upper() in ("", "MONOCHROME") and not shape
    return Photometric(monochrome1, conflict or silent, (NoteCode.INVERSE_CONFLICT,) if conflict else ())


@dataclass(frozen=True)
class ResolvedPolarity:
    """`exchanged`: black and white are to be, against what the header says. `unclear`: why it cannot be told."""

    notes: tuple[NoteCode, ...]
    exchanged: bool = False
    unclear: IndeterminateCode | None = None


def resolve_polarity(image: Image, film: NDArray[np.bool_] | None, turn: Turn, said: Photometric) -> ResolvedPolarity:
    """`image` (H, W) as the header wants it, 0 where `film` (H, W) is False."""
    verdict = assess_polarity(image, film, turn, ambiguous=said.ambiguous)
    if verdict is PolarityCheck.UNCLEAR:
        return ResolvedPolarity((*said.notes, NoteCode.POLARITY_SUSPECT), unclear=IndeterminateCode.POLARITY)
    if verdict is PolarityCheck.KEEP:
        return ResolvedPolarity(said.notes)
    changed = () if said.ambiguous else (NoteCode.POLARITY_CHANGED,)
    return ResolvedPolarity((*said.notes, *changed), exchanged=True)


def assess_polarity(image: Image, film: NDArray[np.bool_] | None, turn: Turn, *, ambiguous: bool) -> PolarityCheck:
    """Against a header that is at one with itself only pixels that are sure count. A film that lies on its side and does not
    say so seems to have bright lungs: it is not to be inverted."""
    opposite = None
    if film is not None:  # black at the rim would speak for dark lungs, whichever way round the film is
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
    """`image` (H, W) with black and white exchanged; what `film` (H, W) leaves out stays black."""
    found = np.float32(1) - image
    if film is not None:
        found[~film] = 0
    return np.asarray(found, np.float32)
