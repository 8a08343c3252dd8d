"""How stored values become grey, as frozen values: modality LUT or rescale, VOI LUT or window, and polarity (the grayscale
transformations of PS3.4 N.2.1). `film/greyscale.py` reads them from a header, `objects/presentation_state.py` writes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LookupTable:
    """A lookup table (PS3.3 C.11.1.1.1): `entries` (N,), `first`: the input of entry 0; inputs beyond an end get the entry
    there. `bits`: of an entry. `repaired`: the descriptor gave another number of entries or bits."""

    entries: NDArray[np.int64]
    first: int
    bits: int
    repaired: bool = False

    @property
    def is_falling(self) -> bool:
        """Whether it exchanges black and white: its upper half is darker than its lower."""
        half = len(self.entries) // 2
        return half > 0 and float(self.entries[-half:].mean()) < float(self.entries[:half].mean())

    def __call__(self, values: NDArray) -> NDArray[np.float32]:
        at = np.clip(np.rint(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[at].astype(np.float32)


@dataclass(frozen=True)
class Window:
    """Centre and width in output units of the modality LUT (PS3.3 C.11.2.1.2); `function` as VOILUTFunction names it (PS3.3
    C.11.2.1.3). Its repr is part of the content digest: names of class and fields must not change."""

    centre: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

    @property
    def is_exact(self) -> bool:
        """A LINEAR window narrower than 1 is invalid and must be meant as LINEAR_EXACT: for values between 0 and 1, say."""
        return self.function == "LINEAR_EXACT" or self.width < 1

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.centre) / self.width, -60, 60)
            return (1 / (1 + np.exp(exponent))).astype(np.float32)
        centre, width = (self.centre, self.width) if self.is_exact else (self.centre - 0.5, max(self.width - 1, 1e-6))
        return np.clip((values - centre) / width + 0.5, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class GreyscaleTransform:
    """The greyscale transformations of a header as effective numbers: headers that mean the same give equal values."""

    slope: float
    intercept: float
    modality: LookupTable | None
    voi: LookupTable | None
    window: Window | None

    def digest_part(self) -> bytes:
        """The part of the content digest: equal for equal transforms."""
        tables = [
            b"-" if table is None else table.entries.tobytes() + f"{table.first},{table.bits}".encode()
            for table in (self.modality, self.voi)
        ]
        return b"|".join([f"{self.slope!r},{self.intercept!r},{self.window!r}".encode(), *tables])


AS_STORED = GreyscaleTransform(1.0, 0.0, None, None, None)


@dataclass(frozen=True)
class Rendering:
    """How a film became grey: the part of its header's transform that was used, or a window from the pixels where none could be
    used. `inverted`: black and white are exchanged after that, by the header, by the pixels, or because an unused table would
    have."""

    transform: GreyscaleTransform
    inverted: bool = False

    @property
    def inverse(self) -> Rendering:
        """The same with black and white exchanged."""
        return replace(self, inverted=not self.inverted)
