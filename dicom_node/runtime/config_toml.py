"""A TOML file as plain values, or a sentence that says where it is not valid TOML 1.0 (https://toml.io/en/v1.0.0).

The line itself is never quoted: it may hold a password.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from dicom_node.runtime.errors import ConfigError

# Part of the parser's message -> the remedy. The first that is found counts.
_REMEDIES = (
    ("Expected '=' after a key", "after a key comes = and a value"),
    ("Invalid value", 'this is not a value: text is written in quotes ("10.0.0.2"), yes and no are true and false'),
    ("Invalid initial character for a key part", "a key has letters, digits, _ and -; other names are written in quotes"),
    ("Invalid statement", "a line is a [section], a key = value, or a # comment"),
    ("Unescaped '\\'", "a backslash in double quotes is written twice; in single quotes once"),
    ("hex value", "a backslash in double quotes is written twice; in single quotes once"),
    ("Cannot declare", "this section is in the file twice; put its keys under one heading"),
    ("Cannot overwrite", "this key is in the section twice; remove one"),
    ("Duplicate inline table key", "this key is in the table twice; remove one"),
    ("Cannot mutate immutable", "this table was closed before; put all its keys in one place"),
    ("Cannot redefine", "this table was closed before; put all its keys in one place"),
    ("Unterminated string", "a quote is not closed"),
    ("Illegal character '\\n'", "a quote is not closed on its line"),
    ("Illegal character", "there is a control character here; delete it"),
    ("Unclosed array", "a list ends with ] and commas separate its entries"),
    ("Unclosed inline table", "a table { ... } ends with } on the same line, commas separate its entries"),
    ("at the end of a table declaration", "a heading is [section], with both brackets"),
    ("at the end of an array declaration", "a heading of a list of tables is [[rules]], with both pairs of brackets"),
    ("Expected newline or end of document", "only a # comment may follow a value on its line; text is written in quotes"),
    ("Invalid date or datetime", "this is not a date; text is written in quotes"),
)  # fmt: skip


def values(path: Path) -> dict[str, Any]:
    """The tables of a file. Raises ConfigError with file, line, column and remedy. A byte order mark is skipped."""
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
    return next((remedy for words, remedy in _REMEDIES if words in problem), "this line cannot be read")
