"""What is wrong with the settings, in our own sentences: file, key, what is allowed, what was given.

pydantic finds the mistakes; its wording is never shown. Values that may contain a secret are never shown.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dicom_node.runtime.config_types import Allowed

Loc = tuple[int | str, ...]
_LONGEST = 60  # characters of a wrong value that are shown


@dataclass(frozen=True)
class _Kind:
    """The type of a setting, and its metadata."""

    type: Any
    metadata: tuple[Any, ...] = ()

    @property
    def allowed(self) -> Allowed | None:
        return next((one for one in self.metadata if isinstance(one, Allowed)), None)


def sentences(model: type[BaseModel], error: ValidationError, source: str, origins: Mapping[tuple[str, ...], str]) -> list[str]:
    """One for each mistake. `source`: the file; `origins`: the environment variable or option that a setting came from,
    by its path."""
    return [f"{_where(tuple(one['loc']), one, source, origins)}: {_sentence(model, one)}" for one in error.errors()]


def _where(loc: Loc, problem: ErrorDetails, source: str, origins: Mapping[tuple[str, ...], str]) -> str:
    texts = tuple(str(part) for part in loc)
    for end in range(len(texts), 0, -1):
        if texts[:end] in origins:
            return origins[texts[:end]]
    is_missing = problem["type"] == "missing"
    near = [
        said
        for path, said in origins.items()
        if texts and (path[: len(texts)] == texts or (is_missing and path[:-1] == texts[:-1]))
    ]
    return near[0] if near else source


def _sentence(model: type[BaseModel], problem: ErrorDetails) -> str:
    loc, value = tuple(problem["loc"]), problem["input"]
    if problem["type"] == "value_error":  # of our own validators: a sentence already
        text = str(problem.get("ctx", {}).get("error", ""))
        return f"{_key(loc)}: {text}" if loc else text
    if problem["type"] == "extra_forbidden":
        return f"{_key(loc)}: {_unknown(model, loc)}"
    if problem["type"] == "missing":
        return f"{_key(loc[:-1])}: the key {loc[-1]} is missing; it must be {_words(_kind(model, loc))}"
    if loc[-1:] == ("[key]",):
        allowed = _words(_kind(model, loc))
        return f"{_key(loc[:-2])}: each name must be {allowed}, not {_given(loc[-2])}"
    kind = _kind(model, loc)
    shown = "a value that is not shown" if kind.allowed and kind.allowed.secret and isinstance(value, str) else _given(value)
    return f"{_key(loc)}: must be {_words(kind)}, not {shown}"


def _key(loc: Loc) -> str:
    """receive.port; send.destinations, entry 2; [[rules]] number 1, mode"""
    text = ""
    for part in loc:
        if part == "[key]":
            continue
        if isinstance(part, int):
            text = f"[[rules]] number {part + 1}" if text == "rules" else f"{text}, entry {part + 1}"
        else:
            text += (", " if text.startswith("[[") and text[-1:].isdigit() else "." if text else "") + part
    return text


# -- unknown keys ----------------------------------------------------------------------------------------------


def _unknown(model: type[BaseModel], loc: Loc) -> str:
    if len(loc) == 1:
        return _unknown_section(model, str(loc[0]))
    key, kind = str(loc[-1]), _kind(model, loc[:-1]).type
    known = list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
    if close := difflib.get_close_matches(_plain(key), known, 1):
        return f"unknown key; did you mean {close[0]}?"
    if elsewhere := [section for section, keys in _sections(model) if _plain(key) in keys]:
        return f"unknown key; it belongs in {_or([_heading(model, one) for one in elsewhere])}"
    return f"unknown key; the keys here are {', '.join(known)}"


def of_peer(name: str, peers: Iterable[str]) -> str:
    """The remedy for a destination that is not among `peers`: a clause to end the sentence."""
    close = difflib.get_close_matches(name, peers, 1, 0.7)
    return f"; did you mean {close[0]}?" if close else f"; add [peers.{name}] with host and port"


def _unknown_section(model: type[BaseModel], name: str) -> str:
    if elsewhere := [section for section, keys in _sections(model) if _plain(name) in keys]:
        return f"unknown key; it belongs in {_or([_heading(model, one) for one in elsewhere])}"
    if close := difflib.get_close_matches(_plain(name), model.model_fields, 1):
        return f"unknown key; did you mean {_heading(model, close[0])}?"
    every = [(f"{section}.{key}", key) for section, keys in _sections(model) for key in keys]
    if near := difflib.get_close_matches(_plain(name), [key for _, key in every], 1):
        return f"unknown key; did you mean {next(full for full, key in every if key == near[0])}?"
    return f"unknown key; the sections are {', '.join(_heading(model, one) for one in model.model_fields)}"


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, list[str]]]:
    for name in model.model_fields:
        kind = _kind(model, (name,)).type
        inner = next((one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if inner is not None:
            yield name, list(inner.model_fields)


def _heading(model: type[BaseModel], section: str) -> str:
    kind = get_origin(_kind(model, (section,)).type)
    return f"[[{section}]]" if kind is tuple else f"[{section}.NAME]" if kind is dict else f"[{section}]"


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _or(names: list[str]) -> str:
    return " or ".join(names)


# -- what is allowed -------------------------------------------------------------------------------------------


def _kind(model: type[BaseModel], loc: Loc) -> _Kind:
    """The type of the setting at `loc`."""
    kind = _Kind(model)
    for at, part in enumerate(loc):
        if part == "[key]":
            continue
        inner = _without_none(kind.type)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            field = inner.model_fields.get(str(part))
            kind = _opened(field.annotation, tuple(field.metadata)) if field else _Kind(None)
        elif get_origin(inner) is dict:
            kind = _opened(get_args(inner)[0 if loc[at + 1 : at + 2] == ("[key]",) else 1])
        else:
            kind = _opened(get_args(inner)[0]) if get_args(inner) else _Kind(None)
    return kind


def _opened(annotation: Any, metadata: tuple[Any, ...] = ()) -> _Kind:
    annotation = _without_none(annotation)
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        constraints = [part for one in more for part in (getattr(one, "metadata", None) or [one])]  # Field() holds several
        return _opened(inner, (*metadata, *constraints))
    return _Kind(annotation, metadata)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        return next(one for one in get_args(annotation) if one is not type(None))
    return annotation


def _words(kind: _Kind) -> str:
    """must be ..."""
    if kind.allowed:
        return kind.allowed.words
    origin = get_origin(kind.type)
    if origin is Literal:
        return "one of " + ", ".join(f'"{one}"' for one in get_args(kind.type))
    if kind.type is bool:
        return "true or false"
    if kind.type in (int, float):
        return ("a whole number" if kind.type is int else "a number") + _range(kind.metadata)
    if origin in (tuple, list):
        entry = _opened(get_args(kind.type)[0])
        if isinstance(entry.type, type) and issubclass(entry.type, BaseModel):
            return "a list of tables: each begins with [[rules]], in two pairs of brackets"
        return f"a list ([...]) whose entries are each {_words(entry)}"
    if origin is dict:
        entry = _opened(get_args(kind.type)[1])
        is_section = isinstance(entry.type, type) and issubclass(entry.type, BaseModel)
        return "a table for each, under headings such as [peers.PACS]" if is_section else f"a table: name = {_words(entry)}"
    if isinstance(kind.type, type) and issubclass(kind.type, BaseModel):
        return "a table: a heading in single brackets, its keys below it"
    return "the name of a file or folder" if kind.type is Path else "text in quotes"


def _range(metadata: tuple[Any, ...]) -> str:
    low = next((one.ge for one in metadata if isinstance(one, Ge)), None)
    above = next((one.gt for one in metadata if isinstance(one, Gt)), None)
    high = next((one.le for one in metadata if isinstance(one, Le)), None)
    if low is not None and high is not None:
        return f" from {low} to {high}"
    limits = [f"{low} or more"] if low is not None else [f"more than {above}"] if above is not None else []
    return "".join(f", {one}" for one in [*limits, *([f"at most {high}"] if high is not None else [])])


def _given(value: Any) -> str:
    """A wrong value as TOML writes it, shortened."""
    if isinstance(value, dict | BaseModel):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.date | datetime.time):
        return "a date or time"
    if isinstance(value, int | float):
        return str(value)
    if value is None:
        return "nothing"
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(value))
    return f'"{text[:_LONGEST]}..."' if len(text) > _LONGEST else f'"{text}"'
