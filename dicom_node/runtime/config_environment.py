"""Environment variables that override the file: SEGMENTER_<SECTION>__<KEY>, in upper or lower case.

A table is merged key by key, everything else replaces what the file says. Lists and tables are written as JSON.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from dicom_node.runtime.errors import ConfigError

PREFIX = "SEGMENTER_"

Path = tuple[str, ...]


def overlay(
    model: type[BaseModel], values: dict[str, Any], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[Path, str]]:
    """(`values` with those of `environ`, the variable that each of these came from). Raises ConfigError for a variable that
    looks like a setting and is none, or that is not JSON where JSON is needed."""
    origins: dict[Path, str] = {}
    for variable in sorted(environ):  # a whole section before its keys
        if not variable.upper().startswith(PREFIX):
            continue
        parts = variable[len(PREFIX) :].split("__")
        section = parts[0].lower()
        if section not in model.model_fields:
            _refuse_misspelt(model, variable, parts)
            continue
        path, kind = _resolve(model, parts, values)
        value = _parsed(f"environment, {variable}: {'.'.join(path)}", environ[variable], kind)
        values = _merged(values, path, value)
        origins = {where: said for where, said in origins.items() if where != path[: len(where)]}  # overridden
        origins |= {(*path, *leaf): f"environment, {variable}" for leaf in _leaves(value)}
    return values, origins


def _refuse_misspelt(model: type[BaseModel], variable: str, parts: list[str]) -> None:
    """Raises ConfigError unless the variable may belong to another program."""
    text = "__".join(parts).lower()
    for section in model.model_fields:  # SEGMENTER_RECEIVE_PORT
        if text.startswith(f"{section}_"):
            right = f"{PREFIX}{section.upper()}__{text[len(section) + 1 :].strip('_').upper()}"
            raise ConfigError(f"environment, {variable}: unknown setting; did you mean {right}, with two underscores?")
    close = difflib.get_close_matches(parts[0].lower(), model.model_fields, 1)
    if len(parts) > 1 or close:
        told = f"; did you mean {'__'.join([PREFIX + close[0].upper(), *parts[1:]])}?" if close else ""
        known = "" if close else f"; the sections are {', '.join(model.model_fields)}"
        raise ConfigError(f"environment, {variable}: there is no section {parts[0].lower()}{told}{known}")


def _resolve(model: type[BaseModel], parts: list[str], values: Any) -> tuple[Path, Any]:
    """The path of a setting as the file spells it, and the type of its value (None: unknown)."""
    path: list[str] = []
    kind: Any = model
    for part in parts:
        table = values if isinstance(values, dict) else {}
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            name = part.lower()
            kind = kind.model_fields[name].annotation if name in kind.model_fields else None
        else:  # a name that the administrator chose, as the file spells it
            name = next((one for one in table if one.upper() == part.upper()), part)
            kind = get_args(kind)[1] if get_origin(kind) is dict else None
        path.append(name)
        values = table.get(name)
    return tuple(path), kind


def _parsed(where: str, text: str, kind: Any) -> Any:
    if kind is None or not _is_nested(kind):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f'{where}: lists and tables are written as JSON here, such as ["A", "B"] or {{"A": ["B"]}}'
        ) from error


def _is_nested(kind: Any) -> bool:
    return _is_table(kind) or get_origin(kind) in (list, tuple) or any(_is_nested(one) for one in get_args(kind))


def _is_table(kind: Any) -> bool:
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, BaseModel))


def _merged(table: Any, path: Path, value: Any) -> Any:
    if not path:
        if isinstance(table, dict) and isinstance(value, dict):
            return table | {name: _merged(table.get(name), (), one) for name, one in value.items()}
        return value
    table = table if isinstance(table, dict) else {}
    return table | {path[0]: _merged(table.get(path[0]), path[1:], value)}


def _leaves(value: Any) -> Iterator[Path]:
    if not isinstance(value, dict) or not value:
        yield ()
        return
    for name, one in value.items():
        yield from ((name, *rest) for rest in _leaves(one))
