"""A film, and its pixels as compressed streams."""

from __future__ import annotations

import pytest
from encapsulated_films import LOSSLESS, base, stream_of
from pydicom.dataset import Dataset


@pytest.fixture(scope="module")
def film() -> Dataset:
    return base()


@pytest.fixture(scope="module")
def streams(film: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {name: stream_of(film, name, tmp_path_factory.mktemp("streams")) for name in LOSSLESS}
