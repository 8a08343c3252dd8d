"""Fixtures: real servers on loopback, each with its own port and folder; a missing tool skips at home and fails in CI."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from programs import program, skip_or_fail


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """`tool("storescu")` -> its path, `tool("/a/file")` -> itself. Missing: skip at home, fail in CI."""

    def find(name: str) -> str:
        path = program(name)
        if path:
            return path
        skip_or_fail(f"{name} is not installed; `make test` installs it")

    return find


# Files of a minute and more, the longest first: with the others behind them all processes end at about the same time.
LONG = (
    "test_crash_points", "test_faults_films", "test_fuzz", "test_fit", "test_shipped_model", "test_odd_destinations",
    "test_matrix", "test_acceptance", "test_node", "test_workers_hosts", "test_multi_machine", "test_crash_points_far",
    "test_tls", "test_storage_scp", "test_chain", "test_engine", "test_worker_server", "test_conformance", "test_commitment",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
