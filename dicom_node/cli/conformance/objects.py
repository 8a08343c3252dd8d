"""Annexes of the conformance statement: what the objects contain that we make, found by making them.

Imports highdicom, so it is imported late.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dicom_node.runtime.config import Config
from dicom_node.storage.destinations import Router
from dicom_node.work.model import segment_settings
from segmenter.conformance import attributes
from segmenter.conformance.attributes import AttributeRow
from segmenter.conformance.examples import Example, examples
from segmenter.objects.kinds import ObjectKind

NEVER = "never"


@dataclass(frozen=True)
class MadeKind:
    """One kind of object. `attributes`: all, of a variant (a kind that shares its role with a plain one) those that differ."""

    kind: ObjectKind
    sop_class: str  # name (UID)
    is_sent: bool
    is_variant: bool
    attributes: tuple[tuple[object, ...], ...]


class Objects:
    """The kinds of objects that a node makes with these settings. `demo`: whether its model is one."""

    def __init__(self, config: Config, *, demo: bool) -> None:
        self._specimens: tuple[Example, ...] = examples(segment_settings(config.segment), demo=demo)
        self._sent = Router.of(config).all_kinds(config.destinations)

    def sent(self) -> list[tuple[str, str]]:
        """(SOP Class UID, Transfer Syntax UID) of each kind that a destination can get."""
        made = [one for specimen in self._specimens for kind, one in specimen.objects.items() if kind in self._sent]
        return sorted({(str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in made})

    def private_attributes(self) -> list[str]:
        """Of all objects; normally none."""
        return list(attributes.private_elements(self._specimens))

    def kinds(self) -> Iterator[MadeKind]:
        """Each kind, made once about every example film."""
        for kind in ObjectKind:
            made = next(one.objects[kind] for one in self._specimens if kind in one.objects)
            rows, plain = attributes.attribute_rows(self._specimens, kind), ObjectKind(kind.role)
            if kind is not plain:
                rows = _differences(attributes.attribute_rows(self._specimens, plain), rows)
            cells = tuple((one.tag, one.keyword, one.vr, one.source, one.value, one.presence) for one in rows)
            sop_class = f"{made.SOPClassUID.name} ({made.SOPClassUID})"
            yield MadeKind(kind, sop_class, kind in self._sent, kind is not plain, cells)

    def report_contents(self) -> Iterator[tuple[ObjectKind, list[tuple[object, ...]]]]:
        """The content items of each kind of structured report; none where they are those of the plain one."""
        plain = attributes.content_rows(self._specimens, ObjectKind.SR)
        for kind in (kind for kind in ObjectKind if kind.role == "sr"):
            found = attributes.content_rows(self._specimens, kind)
            shown = found if kind is ObjectKind.SR or found != plain else []
            yield kind, [(">" * one.level or "root", one.relationship, one.value_type, one.concept, one.value) for one in shown]

    def coded_terms(self) -> list[tuple[object, ...]]:
        """Code value, coding scheme, meaning, and the kinds that use it."""
        used = attributes.codes(self._specimens)
        return [(*code, ", ".join(names)) for code, names in sorted(used.items(), key=lambda one: (one[0][1], one[0][0]))]


def _differences(plain: list[AttributeRow], rows: list[AttributeRow]) -> list[AttributeRow]:
    """The rows that `plain` has not, or otherwise, with the sequences that they are in; and what it alone has."""
    before, now = {one.path: one for one in plain}, {one.path: one for one in rows}
    differ = {one.path for one in rows if before.get(one.path) != one}
    gone = {path: AttributeRow(path, one.vr, "", "", NEVER) for path, one in before.items() if path not in now}
    shown = {path[:depth] for path in (*differ, *gone) for depth in range(1, len(path) + 1)}
    return [(now | gone)[path] for path in sorted(shown)]
