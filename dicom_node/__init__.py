"""The shell: network, disk, queue, process life and command line."""

import importlib.metadata
import re
from pathlib import Path


def _version() -> str:
    """Of pyproject.toml, the one place where it is written: that of the working copy that runs, else as it was installed."""
    project = Path(__file__).parent.parent / "pyproject.toml"
    try:
        found = re.search(r'^name = "segmenter-worker"\nversion = "(.+)"$', project.read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else importlib.metadata.version("segmenter-worker")


__version__ = _version()
