"""docs/reliability.md cannot lie: its tables are asked for anew, its tests exist, its settings and commands too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from status_contract import PAGE, TABLES, block

from dicom_node.cli.main import main
from dicom_node.runtime.config import Config

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_what_the_node_does(name: str) -> None:
    """When this fails and the change is meant: python tests/support/status_contract.py"""
    found = block(name).search(PAGE.read_text("utf-8"))
    assert found is not None, f"{PAGE} has lost its table {name}"
    assert found[2].splitlines() == TABLES[name]().splitlines()


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE.read_text("utf-8"))
    assert len(named) > 20
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in text_of(file)]
    assert not missing
    faults = {file.name for file in HERE.glob("test_faults_*.py")} - {Path(__file__).name}
    assert not faults - {file for file, _ in named}, "a file of fault tests that the page does not name"


def test_every_setting_and_command_that_is_named_exists() -> None:
    text = PAGE.read_text("utf-8")
    sections = {name: set(type(getattr(Config(), name)).model_fields) for name in ("node", "receive", "send", "work", "queue")}
    settings = re.findall(r"`(node|receive|send|work|queue)\.(\w+)`", text)
    assert settings
    assert not [f"{section}.{key}" for section, key in settings if key not in sections[section]]
    verbs = set(re.findall(r"`(retry|rerun|purge|backup|status|jobs)\b", text))
    assert verbs and verbs <= set(main.commands)


def text_of(name: str) -> str:
    """A test file of any room; their names are unique."""
    return next((file.read_text("utf-8") for file in HERE.parent.rglob(name)), "")
