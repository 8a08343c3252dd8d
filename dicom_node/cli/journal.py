"""The journal of associations: who sent, from where, when, how many films, and how it ended.

Rejected callers are logged, not journalled: a peer without access must not be able to fill the ledger.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import click

from dicom_node.cli.options import config_option, json_option, open_ledger, print_json, time_text
from dicom_node.storage.database import Store


@dataclass(frozen=True)
class Entry:
    """One association that was accepted."""

    calling_ae: str
    called_ae: str
    host: str
    opened_at: str  # ISO 8601, local time
    closed_at: str | None  # None: it is open, or the receiver was killed
    films: int  # answered with success
    outcome: str | None  # released, aborted, or lost (the connection ended without either)


def entries(store: Store, limit: int) -> list[Entry]:
    """The newest first."""
    rows = store.read().execute(
        "SELECT calling_ae, called_ae, host, opened_at, closed_at, received, outcome FROM associations"
        " ORDER BY opened_at DESC, id DESC LIMIT ?",
        (limit,),
    )
    return [Entry(calling, called, host, str(time_text(opened)), time_text(closed), films, outcome)
            for calling, called, host, opened, closed, films, outcome in rows]  # fmt: skip


@click.command()
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
@config_option
@json_option
def journal(limit: int, config_path: Path | None, as_json: bool) -> None:
    """The newest associations: who sent, from where, when, how many films, how it ended."""
    _, ledger = open_ledger(config_path)
    found = entries(ledger.store, limit)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    from rich.markup import escape  # no process of a node needs what prints tables

    from dicom_node.cli import terminal

    columns = ("opened", "closed", "calling AE", "called AE", "host", "films", "outcome")
    console = terminal.console()
    table = terminal.table(console, *columns, whole=("opened", "closed", "outcome"), numbers=("films",))
    for one in found:
        peer = (one.calling_ae, one.called_ae, one.host)
        closed = (one.closed_at or "")[11:19]
        table.add_row(_moment(one.opened_at), closed, *map(escape, peer), str(one.films), one.outcome or "open")
    console.print(table)


def _moment(iso: str) -> str:
    """Of an ISO 8601 time, local: month, day and time to the second."""
    return iso[5:19].replace("T", " ")
