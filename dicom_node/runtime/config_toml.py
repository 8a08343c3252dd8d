"""A TOML file as plain values, or the sentence that says where it breaks the rules of TOML 1.0 (https://toml.io/en/v1.0.0).

The line itself is never quoted: it may hold a password.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from dicom_node.runtime.errors import ConfigError

# What the parser says -> what to do. The first that is found in its words counts.
_REMEDIES = (
    ("Expected '=' after a key", "after a key comes = and a value"),
    ("Invalid value", 'this is no value: text stands in quotes ("10.0.0.2"), yes and no are true and false'),
    ("Invalid initial character for a key part", "a key is made of letters, digits, _ and -; other names stand in quotes"),
    ("Invalid statement", "a line is a [section], a key = value, or a # comment"),
    ("Unescaped '\\'", "a backslash in double quotes is written twice; in single quotes it stands for itself"),
    ("hex value", "a backslash in double quotes is written twice; in single quotes it stands for itself"),
    ("Cannot declare", "this section stands in the file twice; put its keys under one heading"),
    ("Cannot overwrite", "this key stands in the section twice; leave one"),
    ("Duplicate inline table key", "this key stands in the table twice; leave one"),
    ("Cannot mutate immutable", "this table was closed before; put all its keys in one place"),
    ("Cannot redefine", "this table was closed before; put all its keys in one place"),
    ("Unterminated string", "a quote is not closed"),
    ("Illegal character '\\n'", "a quote is not closed on its line"),
    ("Illegal character", "a control character stands here; delete it"),
    ("Unclosed array", "a list ends with ] and its entries are parted by commas"),
    ("Unclosed inline table", "a table { ... } ends with } on the same line, its entries parted by commas"),
    ("at the end of a table declaration", "a heading is [section], with both brackets"),
    ("at the end of an array declaration", "a heading of a list of tables is [[rules]], with both pairs of brackets"),
    ("Expected newline or end of document", "only a # comment may follow a value on its line; text stands in quotes"),
    ("Invalid date or datetime", "this is no date; text stands in quotes"),
)  # fmt: skip


def values(path: Path) -> dict[str, Any]:
    """Raises ConfigError with file, line, column and remedy. A byte order mark, as some editors write it, is skipped."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a file with --config") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: is not valid TOML: not UTF-8; save the file as UTF-8") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}, {_place(str(error), text)}: is not valid TOML: {_remedy(str(error))}") from error


def _place(problem: str, text: str) -> str:
    found = re.search(r"\(at line (\d+), column (\d+)\)", problem)
    if found:
        return f"line {found[1]}, column {found[2]}"
    lines = text.rstrip().splitlines() or [""]
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"  # "at end of document"


def _remedy(problem: str) -> str:
    return next((remedy for words, remedy in _REMEDIES if words in problem), "this is not understood")
