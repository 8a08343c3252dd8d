"""What a row of the bench is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROUNDS = 5
Row = dict[str, object]


def row(
    name: str,
    value: float | None,
    unit: str,
    against: str,
    better: str,
    target: float | None = None,
    rounds: Sequence[float] | None = None,
) -> Row:
    """`value`: a median, None where nobody measured it yet; `rounds`: what it is the median of, for the spread."""
    value = None if value is None else round(value, 4)
    spread = None if rounds is None else [round(min(rounds), 4), round(max(rounds), 4)]
    about = {"target": target, "better": better, "unit": unit, "against": against}
    return {"name": name, "value": value, **about, "spread": spread}
