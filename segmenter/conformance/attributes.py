"""The elements of our objects and the sources of their values, found by comparing example objects (examples.py).

| source | an element whose value |
|---|---|
| copied | is the film's, of the same element or of the one that is named |
| configured | is a setting |
| fixed | is the same in the objects of all films; it is shown |
| generated | differs from film to film; dates and times always count as generated |
| empty | is always empty |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from segmenter.conformance.examples import Example

Path = tuple[BaseTag, ...]  # sequences from the outside in, then the element
_SHOWN = 48  # characters of a fixed value
_TELLING = 6  # characters from which an equal value of another element is not a coincidence
_MOMENTS = ("DA", "TM", "DT")
_CONTENT = Tag("ContentSequence")
_CODE = {Tag(name) for name in ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning", "LongCodeValue")}
_MODEL = {
    "name": "name", "version": "version", "commit": "training commit", "digest": "digest", "operating_point": "operating point",
}  # fmt: skip


@dataclass(frozen=True)
class AttributeRow:
    """One element of an object. `presence`: "always", or the condition in words."""

    path: Path
    vr: str
    source: str
    value: str  # of a fixed element, else where it comes from
    presence: str

    @property
    def tag(self) -> str:
        """(gggg,eeee), after one ">" for each level of sequences."""
        return ">" * (len(self.path) - 1) + f"({self.path[-1].group:04X},{self.path[-1].element:04X})"

    @property
    def keyword(self) -> str:
        """The keyword of PS3.6, or "private"."""
        return keyword_for_tag(self.path[-1]) or "private"


@dataclass(frozen=True)
class ContentItemRow:
    """One kind of content item of a structured report (PS3.3 C.17.3). `level` counts from 0, the root."""

    level: int
    relationship: str
    value_type: str
    concept: str
    value: str  # a code, units, or "" for a value that depends on the film


@dataclass
class _Found:
    """The values of the examples at one path."""

    vr: str
    by_specimen: dict[int, list[str]] = field(default_factory=dict)


def attribute_rows(specimens: Sequence[Example], name: str) -> list[AttributeRow]:
    """Every element of the object `name`, in its order; all items of a sequence give one row. The content of a structured
    report is described by `content_rows`."""
    holders = [one for one in specimens if name in one.objects]
    found: dict[Path, _Found] = {}
    for number, one in enumerate(holders):
        for path, vr, value in _walk(one.objects[name], ()):
            here = found.setdefault(path, _Found(vr))
            here.by_specimen.setdefault(number, []).append(value)
    films = [_plain(one.film) for one in holders]
    return [_row(path, found[path], holders, films) for path in sorted(found)]


def codes(specimens: Sequence[Example]) -> dict[tuple[str, str, str], dict[str, None]]:
    """(value, scheme, meaning) of every code in the objects -> the names of those objects."""
    used: dict[tuple[str, str, str], dict[str, None]] = {}
    for one in specimens:
        for name, made in one.objects.items():
            for item in _items(made):
                if "CodeValue" in item:
                    code = (str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning))
                    used.setdefault(code, {})[name] = None
    return used


def content_rows(specimens: Sequence[Example], name: str) -> list[ContentItemRow]:
    """The kinds of content items of a structured report, in order of first appearance; none for other objects."""
    found: dict[tuple[Any, ...], dict[int, set[str]]] = {}
    order: list[tuple[Any, ...]] = []
    for number, one in enumerate(one for one in specimens if name in one.objects):
        at = 0
        for key, value in _content(one.objects[name], 0, ()) if _CONTENT in one.objects[name] else ():
            if key not in found:
                order.insert(at, key)
            at = order.index(key) + 1
            found.setdefault(key, {}).setdefault(number, set()).add(value)
    return [_content_row(key, found[key]) for key in order]


def private_elements(specimens: Sequence[Example]) -> list[str]:
    """The tags of private elements in all objects; the conformance statement promises none."""
    items = (item for one in specimens for made in one.objects.values() for item in (made, *_items(made)))
    return sorted({str(element.tag) for item in items for element in item if element.tag.is_private})


def _walk(dataset: Dataset, above: Path) -> Iterator[tuple[Path, str, str]]:
    for element in dataset:
        path = (*above, element.tag)
        if element.VR != "SQ":
            yield path, element.VR, _text(element.value)
        elif element.tag == _CONTENT or all(set(item.keys()) <= _CODE for item in element.value):
            yield path, "SQ", " and ".join(_code(item) for item in element.value) if element.tag != _CONTENT else "its content"
        else:
            yield path, "SQ", "items"
            for item in element.value:
                yield from _walk(item, path)


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)


def _content(item: Dataset, level: int, above: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    concept = _code(item.ConceptNameCodeSequence[0]) if item.get("ConceptNameCodeSequence") else ""
    # Without the title: a report without a finding has another title, and the same items below it.
    path = (*above, f"{item.get('RelationshipType', '')} {item.get('ValueType', '')} {concept}") if level else ()
    value = ""
    if item.get("ConceptCodeSequence"):
        value = _code(item.ConceptCodeSequence[0])
    elif item.get("MeasuredValueSequence"):
        value = "in " + _code(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0])
    elif item.get("GraphicType"):
        value = str(item.GraphicType)
    elif item.get("TextValue"):
        value = str(item.TextValue)
    yield (level, str(item.get("RelationshipType", "")), str(item.get("ValueType", "")), concept, path), value
    for below in item.get("ContentSequence") or ():
        yield from _content(below, level + 1, path)


def _content_row(key: tuple[Any, ...], values: Mapping[int, set[str]]) -> ContentItemRow:
    level, relationship, value_type, concept, _ = key
    said, every = {frozenset(one) for one in values.values()}, set().union(*values.values())
    is_coded = all(one.startswith(("(", "in (")) for one in every)
    is_fixed = len(said) == 1 and len(values) > 1
    return ContentItemRow(level, relationship, value_type, concept, " or ".join(sorted(every)) if is_coded or is_fixed else "")


def _row(path: Path, found: _Found, holders: Sequence[Example], films: Sequence[Mapping[BaseTag, str]]) -> AttributeRow:
    values = {number: "; ".join(dict.fromkeys(one for one in held if one)) for number, held in found.by_specimen.items()}
    filled = {number: value for number, value in values.items() if value}
    source, shown = _source(path, found.vr, filled, holders, films)
    return AttributeRow(path, found.vr, source, shown, _presence(values, filled, holders))


def _source(
    path: Path,
    vr: str,
    filled: Mapping[int, str],
    holders: Sequence[Example],
    films: Sequence[Mapping[BaseTag, str]],
) -> tuple[str, str]:
    if not filled:
        return "empty", ""
    if vr == "SQ" and set(filled.values()) in ({"items"}, {"its content"}):
        return ("generated", "see the content below") if "its content" in filled.values() else ("", "")
    is_same = len(set(filled.values())) == 1
    if is_same and len(filled) > 1 and vr not in _MOMENTS and path[-1] != Tag("PixelData"):
        (value,) = set(filled.values())
        return "fixed", value if len(value) <= _SHOWN or vr == "SQ" else f"{value[: _SHOWN - 3]}..."
    if vr == "SQ":
        return "generated", " or ".join(sorted(set(filled.values())))
    there = {number for number in filled if path[-1] in films[number]}
    if there and all(films[number][path[-1]] == filled[number] for number in there):
        made_up = {value for number, value in filled.items() if number not in there}
        if not made_up or (len(there) > 1 and len(made_up) == 1):
            return "copied", f"{made_up.pop()} when the film has none" if made_up else ""
    if (
        vr == "IS"
        and len(more := {int(value) - holders[number].settings.series_number for number, value in filled.items()}) == 1
    ):
        return "configured", "`segment.series_number`" + (f" + {offset}" if (offset := more.pop()) else "")
    if vr not in _MOMENTS and all(len(value) >= _TELLING for value in filled.values()):
        for tag in dict.fromkeys(tag for number in filled for tag in films[number]):
            if all(films[number].get(tag) == value for number, value in filled.items()):
                return "copied", f"from ({tag.group:04X},{tag.element:04X}) {keyword_for_tag(tag)}"
    return "generated", _of_the_model(filled, holders)


def _of_the_model(filled: Mapping[int, str], holders: Sequence[Example]) -> str:
    named = [
        word
        for one in fields(holders[0].identity)
        if (word := _MODEL.get(one.name))
        and all(str(getattr(holders[number].identity, one.name)) in value for number, value in filled.items())
    ]
    return f"with the model's {', '.join(named)}" if named else ""


def _presence(values: Mapping[int, str], filled: Mapping[int, str], holders: Sequence[Example]) -> str:
    bare = {number for number, one in enumerate(holders) if one.is_bare}
    negative = {number for number, one in enumerate(holders) if one.is_negative}
    everywhere = set(range(len(holders)))
    if set(values) == everywhere:
        missing = everywhere - set(filled)
        return "always" if not missing or not filled else "always; empty when the film has none"
    if everywhere - set(values) <= bare:
        return "when the film has it"
    return "when something is found" if everywhere - set(values) <= negative else "when it applies"


def _plain(film: Dataset) -> dict[BaseTag, str]:
    return {one.tag: text for one in film if one.VR != "SQ" and one.tag.group < 0x7FE0 and (text := _text(one.value))}


def _code(item: Dataset) -> str:
    return f'({item.get("CodeValue", "")}, {item.get("CodingSchemeDesignator", "")}, "{item.get("CodeMeaning", "")}")'


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(_text(one) for one in value)
    if isinstance(value, float):
        return f"{float(value):.7g}"
    return str(value)
