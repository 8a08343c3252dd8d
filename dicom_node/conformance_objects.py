"""Annexes of the conformance statement: what the objects hold that we make, found out by making them.

Imports highdicom, so it is imported late.
"""

from __future__ import annotations

from dicom_node.config import Config
from dicom_node.model import segment_settings
from dicom_node.page import Section, Table
from segmenter import elements
from segmenter.specimen import Specimen, specimens


class Objects:
    """The kinds of objects that a node with these settings makes. `demo`: whether its model is one."""

    def __init__(self, config: Config, *, demo: bool) -> None:
        self._specimens: tuple[Specimen, ...] = specimens(segment_settings(config.segment), demo=demo)
        self.names = list(dict.fromkeys(name for one in self._specimens for name in one.objects))

    def sent(self) -> list[tuple[str, str]]:
        """(SOP Class UID, Transfer Syntax UID) of each kind."""
        made = [one for specimen in self._specimens for one in specimen.objects.values()]
        return sorted({(str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in made})

    def annexes(self) -> list[Section]:
        return [*self._attributes(), *self._content(), *self._codes()]

    def _attributes(self) -> list[Section]:
        private = ", ".join(elements.private_elements(self._specimens)) or "none"
        sections = [Section("A", "Information object definitions of created objects", (
            "Found by building each object about three made-up films with the code of this version, and comparing. "
            "`copied`: the film's own bytes; `configured`: a setting; `fixed`: the value shown, always; `generated`: made "
            "for the object; `empty`: never a value. Sequence items are indented by `>`.",
            f"Private attributes: {private}. Standard extended or specialised SOP classes: none.",
        ))]  # fmt: skip
        columns = "Tag | Attribute | VR | Source | Value or origin | Presence"
        for number, name in enumerate(self.names, 1):
            rows = [(one.tag, one.keyword, one.vr, one.source, one.value, one.presence)
                    for one in elements.rows(self._specimens, name)]  # fmt: skip
            made = next(one.objects[name] for one in self._specimens if name in one.objects)
            said = f"SOP class: {made.SOPClassUID.name} ({made.SOPClassUID})."
            sections.append(Section(f"A.{number}", name, (said, Table.of(f"attributes of {name}", columns, rows))))
        return sections

    def _content(self) -> list[Section]:
        sections: list[Section] = []
        columns = "Level | Relationship | Value type | Concept | Value"
        for name in self.names:
            rows = [(">" * one.level or "root", one.relationship, one.value_type, one.concept, one.value)
                    for one in elements.contents(self._specimens, name)]  # fmt: skip
            if rows:
                sections.append(Section(f"B.{len(sections) + 1}", name, (Table.of(f"content of {name}", columns, rows),)))
        said = ("Every kind of content item that occurs, in the order in which it appears.",)
        return [
            Section("B", "Structured report content", said if sections else ("No structured reports are made.",)),
            *sections,
        ]

    def _codes(self) -> list[Section]:
        used = elements.codes(self._specimens)
        rows = [
            (*code, ", ".join(sorted(names))) for code, names in sorted(used.items(), key=lambda one: (one[0][1], one[0][0]))
        ]
        columns = "Code value | Coding scheme | Meaning | Used in"
        return [Section("C", "Coded terms used", (Table.of("coded terms", columns, rows),))]
