"""A conformance statement as its readers have it: the tables, read back from the Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from dicom_node.cli.conformance.command import statement
from dicom_node.runtime.config import Config

Row = dict[str, str]


@dataclass(frozen=True)
class Statement:
    text: str
    tables: dict[str, list[Row]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> Statement:
        return cls.read(statement(config).markdown())

    @classmethod
    def read(cls, text: str) -> Statement:
        tables: dict[str, list[Row]] = {}
        for name, lines in re.findall(r"^\*\*Table: (.+)\*\*\n\n((?:\|.*\n)+)", text, re.MULTILINE):
            assert name not in tables, f"two tables are called {name}"
            columns, _, *rows = [_cells(line) for line in lines.splitlines()]
            tables[name] = [dict(zip(columns, row, strict=True)) for row in rows]
        return cls(text, tables)

    def contexts(self, table: str) -> dict[tuple[str, str], str]:
        """(abstract syntax, transfer syntax) -> our role."""
        return {
            (row["UID"], syntax): row["Our role"]
            for row in self.tables[table]
            for syntax in row["Transfer syntaxes"].split(", ")
        }

    def parameter(self, name: str, entity: str) -> str:
        """From the table of association parameters; `entity`: RECEIVER or SENDER."""
        [row] = [row for row in self.tables["association parameters"] if row["Parameter"] == name]
        [value] = [value for column, value in row.items() if column.startswith(entity)]
        return value


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
