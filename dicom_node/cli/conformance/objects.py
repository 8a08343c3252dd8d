"""Annexes of the conformance statement: what the objects hold that we make, found out by making them.

Imports highdicom, so it is imported late.
"""

from __future__ import annotations

from dicom_node.cli.conformance.document import Section, Table
from dicom_node.runtime.config import Config
from dicom_node.storage.destinations import Router
from dicom_node.work.model import segment_settings
from segmenter.conformance import attributes
from segmenter.conformance.attributes import Row
from segmenter.conformance.examples import Specimen, specimens
from segmenter.objects.kinds import Kind

_ATTRIBUTES = "Tag | Attribute | VR | Source | Value or origin | Presence"
_CONTENT = "Level | Relationship | Value type | Concept | Value"
NEVER = "never"


class Objects:
    """The kinds of objects that a node makes with these settings. `demo`: whether its model is one."""

    def __init__(self, config: Config, *, demo: bool) -> None:
        self._specimens: tuple[Specimen, ...] = specimens(segment_settings(config.segment), demo=demo)
        self._sent = Router.of(config).all_kinds(config.destinations)

    def sent(self) -> list[tuple[str, str]]:
        """(SOP Class UID, Transfer Syntax UID) of each kind that a destination can get."""
        made = [one for specimen in self._specimens for kind, one in specimen.objects.items() if kind in self._sent]
        return sorted({(str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in made})

    def annexes(self) -> list[Section]:
        return [*self._attributes(), *self._content(), *self._codes()]

    def _attributes(self) -> list[Section]:
        private = ", ".join(attributes.private_elements(self._specimens)) or "none"
        sections = [Section("A", "Information object definitions of created objects", (
            "Found by building each object about several made-up films with the code of this version, and comparing. `copied`: "
            "the film's own value; `configured`: a setting; `fixed`: the value shown, always; `generated`: made for it; "
            "`empty`: never a value. Sequence items are indented by `>`. A film on which nothing was marked has at most a "
            "structured report.",
            f"Private attributes: {private}. Standard extended or specialised SOP classes: none.",
        ))]  # fmt: skip
        for number, kind in enumerate(Kind, 1):
            sections.append(Section(f"A.{number}", str(kind), tuple(self._about(kind))))
        return sections

    def _about(self, kind: Kind) -> list[str | Table]:
        made = next(one.objects[kind] for one in self._specimens if kind in one.objects)
        sent = "Sent by this configuration." if kind in self._sent else "Not sent by this configuration."
        said = f"SOP class: {made.SOPClassUID.name} ({made.SOPClassUID}). {sent}"
        rows, plain = attributes.rows(self._specimens, kind), Kind(kind.role)
        if kind is not plain:
            rows = _differences(attributes.rows(self._specimens, plain), rows)
            said += f" As `{plain}`, with these differences:" if rows else f" As `{plain}` in every attribute."
        if not rows:
            return [said]
        cells = [(one.tag, one.keyword, one.vr, one.source, one.value, one.presence) for one in rows]
        return [said, Table.of(f"attributes of {kind}", _ATTRIBUTES, cells)]

    def _content(self) -> list[Section]:
        said = "Every kind of content item that occurs, in the order in which it appears. Root template: TID 1500 (PS3.16)."
        sections = [Section("B", "Structured report content", (said,))]
        plain = attributes.contents(self._specimens, Kind.SR)
        for number, kind in enumerate((kind for kind in Kind if kind.role == "sr"), 1):
            found = attributes.contents(self._specimens, kind)
            block: str | Table = f"As `{Kind.SR}`."
            if kind is Kind.SR or found != plain:
                cells = [(">" * one.level or "root", one.relationship, one.value_type, one.concept, one.value) for one in found]
                block = Table.of(f"content of {kind}", _CONTENT, cells)
            sections.append(Section(f"B.{number}", str(kind), (block,)))
        return sections

    def _codes(self) -> list[Section]:
        used = attributes.codes(self._specimens)
        rows = [(*code, ", ".join(names)) for code, names in sorted(used.items(), key=lambda one: (one[0][1], one[0][0]))]
        columns = "Code value | Coding scheme | Meaning | Used in"
        return [Section("C", "Coded terms used", (Table.of("coded terms", columns, rows),))]


def _differences(plain: list[Row], rows: list[Row]) -> list[Row]:
    """The rows that `plain` has not, or otherwise, with the sequences that they are in; and what it alone has."""
    before, now = {one.path: one for one in plain}, {one.path: one for one in rows}
    differ = {one.path for one in rows if before.get(one.path) != one}
    gone = {path: Row(path, one.vr, "", "", NEVER) for path, one in before.items() if path not in now}
    shown = {path[:depth] for path in (*differ, *gone) for depth in range(1, len(path) + 1)}
    return [(now | gone)[path] for path in sorted(shown)]
