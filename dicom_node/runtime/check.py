"""The outcome of one check of the node, for `segmenter-worker check` and /readyz."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was checked, and a sentence that names the remedy when it is not `ok`."""

    name: str
    ok: bool
    text: str
    warning: bool = False  # nothing is broken, but an administrator should know
