"""A document of sections with paragraphs and tables: read from Markdown, written as Markdown and as plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

_HEADING = re.compile(r"#{2,6} (\S+) (.+)")
_AS_THEY_ARE = ("    ", "- ")  # preformatted lines, lists


@dataclass(frozen=True)
class Table:
    """`name` is unique in a document: programs find the table by it."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, name: str, columns: str, rows: Iterable[Sequence[object]]) -> Table:
        """`columns` separated by " | "; cells as texts."""
        return cls(name, tuple(columns.split(" | ")), tuple(tuple(str(cell) for cell in row) for row in rows))

    def markdown(self) -> str:
        """Name and rows; a cell is one line."""
        rows = [self.columns, ("---",) * len(self.columns), *self.rows]
        lines = ("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows)
        return f"**Table: {self.name}**\n\n" + "\n".join(lines)


@dataclass(frozen=True)
class Section:
    """`number`: "7.2.1"; its depth is that of the heading."""

    number: str
    title: str
    blocks: tuple[str | Table, ...] = ()

    @property
    def depth(self) -> int:
        """1 for a chapter, 2 for "7.2"."""
        return self.number.count(".") + 1


@dataclass(frozen=True)
class Page:
    """The whole document."""

    title: str
    head: tuple[str, ...]  # paragraphs before the first section
    sections: tuple[Section, ...]

    @classmethod
    def read(cls, text: str, tables: Mapping[str, Table]) -> Page:
        """From Markdown whose paragraphs may be broken into lines. A block that is a key of `tables` is that table."""
        title, *blocks = (block for block in re.split(r"\n(?:[ \t]*\n)+", text.strip("\n")) if block.strip())
        head: list[str] = []
        sections: list[Section] = []
        for block in blocks:
            if heading := _HEADING.fullmatch(block):
                sections.append(Section(heading[1], heading[2]))
                continue
            found = tables.get(block) or (block if block.startswith(_AS_THEY_ARE) else " ".join(block.split("\n")))
            if sections:
                sections[-1] = replace(sections[-1], blocks=(*sections[-1].blocks, found))
            else:
                head.append(str(found))
        return cls(title.removeprefix("# "), tuple(head), tuple(sections))

    def with_contents(self, number: str) -> Page:
        """With a table of contents, two levels deep, in the section of this number."""
        listed = "\n".join(f"{'  ' * (one.depth - 1)}- {one.number} {one.title}" for one in self.sections if one.depth <= 2)
        filled = (replace(one, blocks=(listed,)) if one.number == number else one for one in self.sections)
        return replace(self, sections=tuple(filled))

    def markdown(self) -> str:
        """The document for people."""
        parts = [f"# {self.title}", *self.head]
        for section in self.sections:
            parts.append(f"{'#' * min(section.depth + 1, 6)} {section.number} {section.title}")
            parts.extend(block if isinstance(block, str) else block.markdown() for block in section.blocks)
        return "\n\n".join(parts) + "\n"

    def values(self) -> dict[str, Any]:
        """The document for programs: texts and tables by section, and all tables by name."""
        return {
            "title": self.title,
            "head": list(self.head),
            "sections": [
                {
                    "number": one.number,
                    "title": one.title,
                    "text": [block for block in one.blocks if isinstance(block, str)],
                    "tables": [block.name for block in one.blocks if isinstance(block, Table)],
                }
                for one in self.sections
            ],
            "tables": {one.name: [dict(zip(one.columns, row, strict=True)) for row in one.rows] for one in self.tables()},
        }

    def tables(self) -> Iterator[Table]:
        """In the order of the document."""
        for section in self.sections:
            yield from (block for block in section.blocks if isinstance(block, Table))
