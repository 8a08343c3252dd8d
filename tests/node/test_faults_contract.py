"""docs/develop/reliability.md cannot lie: its tables are asked for anew, its tests exist, its settings and commands too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from status_contract import PAGE, TABLES, block

from dicom_node.cli.main import main
from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Peer

TESTS = next(folder for folder in Path(__file__).parents if folder.name == "tests")
SECTIONS = ("node", "receive", "send", "queue", "work", "serve", "retention", "segment", "log")
PAGES = sorted(page for page in PAGE.parent.parent.rglob("*.md") if page.name != "conformance.md")


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_what_the_node_does(name: str) -> None:
    """When this fails and the change is meant: python tests/support/status_contract.py"""
    found = block(name).search(PAGE.read_text("utf-8"))
    assert found is not None, f"{PAGE} has lost its table {name}"
    assert found[2].splitlines() == TABLES[name]().splitlines()


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE.read_text("utf-8"))
    assert len(named) > 20
    files = {file.name: file.read_text("utf-8") for file in TESTS.rglob("test_*.py")}
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in files.get(file, "")]
    assert not missing
    faults = {name for name in files if name.startswith("test_faults_")} - {Path(__file__).name}
    assert not faults - {file for file, _ in named}, "a file of fault tests that the page does not name"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    sections = {name: set(type(getattr(Config(), name)).model_fields) for name in SECTIONS}
    sections["peers.X"] = set(Peer.model_fields)
    settings = re.findall(rf"`({'|'.join(sections)})\.(?!pem|key|csr)(\w+)`", page.read_text("utf-8"))  # node.pem is a file
    assert not [f"{section}.{key}" for section, key in settings if key not in sections[section]]


def test_the_commands_of_the_page_exist() -> None:
    verbs = set(re.findall(r"`(retry|rerun|purge|restore|check|pause)\b", PAGE.read_text("utf-8")))
    assert verbs and verbs <= set(main.commands)
