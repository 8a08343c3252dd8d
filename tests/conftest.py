"""Fixtures: real servers on loopback, each with its own port and folder; a missing tool skips at home and fails in CI."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from programs import program


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """`tool("storescu")` -> its path, `tool("/a/file")` -> itself. Missing: skip at home, fail in CI."""

    def find(name: str) -> str:
        path = program(name)
        if path:
            return path
        message = f"{name} is not installed; `make test` installs it"
        pytest.fail(message) if in_ci() else pytest.skip(message)

    return find
