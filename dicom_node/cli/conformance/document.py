"""A document of sections with paragraphs and tables, and its two writings: Markdown for people, plain values for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


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


@dataclass(frozen=True)
class Section:
    """`number`: "7.2.1"; its depth is that of the heading."""

    number: str
    title: str
    blocks: tuple[str | Table, ...] = ()

    @property
    def depth(self) -> int:
        return self.number.count(".") + 1


@dataclass(frozen=True)
class Page:
    title: str
    head: tuple[str, ...]  # paragraphs before the first section
    sections: tuple[Section, ...]

    def markdown(self) -> str:
        parts = [f"# {self.title}", *self.head]
        for section in self.sections:
            parts.append(f"{'#' * min(section.depth + 1, 6)} {section.number} {section.title}")
            parts.extend(_block(block) for block in section.blocks)
        return "\n\n".join(parts) + "\n"

    def values(self) -> dict[str, Any]:
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
        for section in self.sections:
            yield from (block for block in section.blocks if isinstance(block, Table))


def contents(sections: Iterable[Section]) -> str:
    """A table of contents, two levels deep."""
    return "\n".join(f"{'  ' * (one.depth - 1)}- {one.number} {one.title}" for one in sections if one.depth <= 2)


def _block(block: str | Table) -> str:
    if isinstance(block, str):
        return block
    rows = [block.columns, ("---",) * len(block.columns), *block.rows]
    lines = "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows)
    return f"**Table: {block.name}**\n\n{lines}"
