"""The internal names of pynetdicom that we use: each is there in the form that we expect, and none is used that is not listed.

A release of pynetdicom that moves one of them fails here, by its name."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pynetdicom
import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_node.dimse import pynetdicom_adapter

PRODUCT = Path(pynetdicom_adapter.__file__).parents[1]
ADAPTER = Path(pynetdicom_adapter.__file__)
ROW = re.compile(r"^    ((?:_config|association|dul|dimse|dimse_messages|transport)\.[\w.]+)(\([^)]*\))?", re.MULTILINE)
TABLE = dict(ROW.findall(pynetdicom_adapter.__doc__ or ""))


@pytest.fixture(scope="module")
def instances() -> dict[str, object]:
    """One of each class, by its name: some attributes are made by its constructor."""
    association = Association(AE(), "requestor")
    connection = AssociationSocket(association, address=AddressInformation("127.0.0.1", 0))
    connection.close()
    made = (association, association.dul, association.dimse, connection, DIMSEMessage())
    return {type(one).__name__: one for one in made}


@pytest.mark.parametrize("name", TABLE)
def test_it_is_where_we_expect_it(name: str, instances: dict[str, object]) -> None:
    module, *owner, attribute = name.split(".")
    holder = instances[owner[0]] if owner else importlib.import_module(f"pynetdicom.{module}")
    assert hasattr(holder, attribute), f"pynetdicom {pynetdicom.__version__} has no {name}"
    if TABLE[name]:
        found = inspect.signature(getattr(type(holder), attribute))
        names = [parameter.replace(annotation=parameter.empty) for parameter in found.parameters.values()]
        said = str(inspect.Signature(names))
        assert said == TABLE[name], f"pynetdicom {pynetdicom.__version__}: {name}{said} instead of {TABLE[name]}"


def test_the_table_is_read() -> None:
    assert len(TABLE) > 15 and TABLE["dul.DULServiceProvider._decode_pdu"] == "(self, bytestream)"


def test_no_internal_name_is_used_that_is_not_in_the_table() -> None:
    listed = {name.rpartition(".")[2] for name in TABLE}
    internal = _private_names_of_the_library()
    for file in PRODUCT.rglob("*.py"):
        for used, line in _used(ast.parse(file.read_text("utf-8"))):
            if used in internal:
                assert used in listed, f"{file.name}:{line} uses {used} of pynetdicom, which the table does not list"
                assert file == ADAPTER, f"{file.name}:{line} uses {used} of pynetdicom outside the adapter"


def test_no_private_module_is_imported_but_the_settings() -> None:
    for file in PRODUCT.rglob("*.py"):
        for one in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(one, ast.ImportFrom) and (one.module or "").partition(".")[0] == "pynetdicom":
                names = {part for part in (one.module or "").split(".") if part.startswith("_")}
                names |= {alias.name for alias in one.names if alias.name.startswith("_")}
                assert names <= ({"_config"} if file == ADAPTER else set()), f"{file.name}:{one.lineno}: {names}"


def _used(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Private names of others, and in a class that derives from pynetdicom's also its own: it may replace one."""
    if "pynetdicom" not in " ".join(ast.unparse(one) for one in ast.walk(tree) if isinstance(one, ast.Import | ast.ImportFrom)):
        return
    theirs = {"NodeAssociation", "Transport", "UpperLayer", "DimseProvider"}
    theirs |= {alias.name for one in ast.walk(tree) if isinstance(one, ast.ImportFrom) for alias in one.names}
    for one in tree.body:
        derives = isinstance(one, ast.ClassDef) and any(ast.unparse(base) in theirs for base in one.bases)
        for name, line, of_self in _private_names(one):
            if derives or not of_self:
                yield name, line


def _private_names(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Name, line, and whether it is one of `self`: attributes that are used, functions that are defined."""
    for one in ast.walk(tree):
        if isinstance(one, ast.Attribute) and re.match("_[^_]", one.attr):
            yield one.attr, one.lineno, isinstance(one.value, ast.Name) and one.value.id == "self"
        elif isinstance(one, ast.FunctionDef) and re.match("_[^_]", one.name):
            yield one.name, one.lineno, True


def _private_names_of_the_library() -> set[str]:
    """Of the classes that ours derive from, and of what they hold."""
    modules = ("association", "acse", "dul", "dimse", "dimse_messages", "transport", "events")
    trees = [ast.parse(inspect.getsource(importlib.import_module(f"pynetdicom.{one}"))) for one in modules]
    return {name for tree in trees for name, _, _ in _private_names(tree)}
