"""The kinds of film that a hospital may send, as cells of a matrix, and a small set of cells that meets every valid pair.

A cell is left out only where its film cannot be written at all, or where it would say nothing new (`why_not`). A header that
the standard does not allow, such as a DX without spacing, is no reason: such films come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, product
from typing import Any, get_args, get_type_hints

from dicom_node.dimse.contexts import TRANSFER_SYNTAXES
from segmenter.phantom.dicom import ImageIOD

# What the film says of the size of its pixels; the last word is the header's own for "nothing".
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "ImagerPixelSpacing, magnification", "none")
PLAIN = "Explicit VR Little Endian"
JPEG_BITS = {"JPEG Baseline": {8}, "JPEG Extended": {8, 12}}  # PS3.5 A.4.1: processes 1, and 2 and 4


@dataclass(frozen=True, order=True)
class Cell:
    """One kind of film. Every field is a dimension, `DIMENSIONS` says which values it takes."""

    kind: str
    photometric: str
    bits: int  # Bits Stored
    frame_of_reference: bool
    spacing: str
    type_2: bool  # patient, study and equipment attributes that must be there and may be empty (PS3.5 7.4.3)
    view_position: bool
    pneumothorax: bool  # whether there is something to be found
    syntax: str  # a name of TRANSFER_SYNTAXES

    def __str__(self) -> str:
        said = {
            "type 2": self.type_2, "frame of reference": self.frame_of_reference, "view": self.view_position,
            "pneumothorax": self.pneumothorax,
        }  # fmt: skip
        words = [f"{'with' if there else 'without'} {name}" for name, there in said.items()]
        return ", ".join([f"{self.kind} {self.photometric} {self.bits} bit", self.syntax, f"spacing {self.spacing}", *words])


DIMENSIONS: dict[str, tuple[Any, ...]] = {
    "kind": get_args(ImageIOD),
    "photometric": ("MONOCHROME1", "MONOCHROME2"),
    "bits": (8, 12, 16),
    "frame_of_reference": (True, False),
    "spacing": SPACINGS,
    "type_2": (True, False),
    "view_position": (True, False),
    "pneumothorax": (True, False),
    "syntax": tuple(TRANSFER_SYNTAXES),
}
assert tuple(DIMENSIONS) == tuple(one.name for one in fields(Cell)) and get_type_hints(Cell)["syntax"] is str


def why_not(cell: Cell) -> str | None:
    """Why the matrix has no such film; None when it has. These are the only exclusions."""
    allowed = JPEG_BITS.get(cell.syntax, {cell.bits})
    if cell.bits not in allowed:
        return f"{cell.syntax} holds {' or '.join(map(str, sorted(allowed)))} bits (PS3.5 A.4.1)"
    if not cell.pneumothorax and cell.syntax != PLAIN:
        return "what is said of a film without finding does not depend on the encoding of its pixels"
    return None


def valid_cells() -> Iterator[Cell]:
    """The full matrix, in a fixed order."""
    for values in product(*DIMENSIONS.values()):
        cell = Cell(*values)
        if why_not(cell) is None:
            yield cell


def few_cells() -> list[Cell]:
    """Films with a finding that meet every pair, because only they have all objects; and films without one that do so."""
    cells = list(valid_cells())
    return [one for finding in (True, False) for one in covering([c for c in cells if c.pneumothorax is finding])]


Pair = tuple[tuple[str, Any], tuple[str, Any]]


def pairs_of(cell: Cell) -> frozenset[Pair]:
    """The pairs of values of two dimensions that the film of this cell brings together."""
    return frozenset(combinations(((name, getattr(cell, name)) for name in DIMENSIONS), 2))


def covering(cells: Sequence[Cell]) -> list[Cell]:
    """Greedily, the same at every run: a few of `cells` that meet every pair which any of them meets.

    Each step takes the cell with most pairs still to be met; of equals, that whose values were taken least often, so that no
    value is rare, and then the first."""
    numbers: dict[Pair, int] = {}  # sets of pairs are the bits of an integer: there are many of them
    meets = {cell: sum(1 << numbers.setdefault(pair, len(numbers)) for pair in pairs_of(cell)) for cell in cells}
    missing = (1 << len(numbers)) - 1
    times = {(name, value): 0 for name, values in DIMENSIONS.items() for value in values}
    taken: list[Cell] = []
    while missing:
        gain = {cell: (pairs & missing).bit_count() for cell, pairs in meets.items()}
        most = max(gain.values())
        meets = {cell: pairs for cell, pairs in meets.items() if gain[cell]}  # the others never will meet a new one
        best = [cell for cell in meets if gain[cell] == most]
        chosen = min(best, key=lambda cell: sum(times[name, getattr(cell, name)] for name in DIMENSIONS))
        taken.append(chosen)
        missing &= ~meets[chosen]
        for name in DIMENSIONS:
            times[name, getattr(chosen, name)] += 1
    return taken
