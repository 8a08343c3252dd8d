"""The model that answers in a moment (instant_model.py), made once for all tests that run it in a whole node."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from instant_model import MIN_SIDE_PX, film, instant_model

quick_film = film


def quick_settings(**more: str) -> dict[str, str]:
    """Environment of a node that runs the model, on one thread."""
    return {
        "SEGMENTER_SEGMENT__MODEL": str(quick_model()), "SEGMENTER_SEGMENT__MIN_SIDE_PX": str(MIN_SIDE_PX),
        "SEGMENTER_SEGMENT__DEVICE": "cpu", "SEGMENTER_SEGMENT__THREADS": "1", "OMP_NUM_THREADS": "1", **more,
    }  # fmt: skip


@functools.cache
def quick_model() -> Path:
    """The artifact's folder, until the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="quick-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return instant_model(folder)
