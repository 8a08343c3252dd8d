"""`segmenter-worker workers`: which workers on other machines may work for this node."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_node.cli.options import config_option, json_option, load_config, print_json, time_text


@click.group()
def workers() -> None:
    """Workers on other machines: their tokens, when they asked for work last, and with which model."""


@workers.command()
@click.argument("name")
@config_option
def add(name: str, config_path: Path | None) -> None:
    """Print a new token for the worker NAME; an older token of that name is no longer valid."""
    click.echo(_workers(config_path).add(name))


@workers.command()
@click.argument("name")
@config_option
def revoke(name: str, config_path: Path | None) -> None:
    """Refuse the worker NAME from now on, and return the films that it has claimed to the queue."""
    from dicom_node.storage.ledger import Ledger

    found = _workers(config_path)
    found.revoke(name)
    freed = Ledger(found.path).release_remote(name)
    click.echo(f"{name} revoked; {freed} {'film' if freed == 1 else 'films'} returned to the queue")


@workers.command("list")
@config_option
@json_option
def list_(config_path: Path | None, as_json: bool) -> None:
    """The workers that were added."""
    rows = [
        {
            "name": one.name,
            "state": "revoked" if one.revoked_at else "allowed",
            "last_seen": time_text(one.seen_at),
            "model": one.model,
            "model_digest": one.model_digest,
        }
        for one in _workers(config_path).all()
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        seen = f"last seen {row['last_seen']} with {row['model']}" if row["last_seen"] else "never seen"
        click.echo(f"{row['name']}: {row['state']}, {seen}")
    if not rows:
        click.echo("no worker was added; `segmenter-worker workers add NAME` makes a token")


def _workers(config_path: Path | None):  # type: ignore[no-untyped-def]  # imports inside keep every start fast
    from dicom_node.storage.database import Store
    from dicom_node.storage.spool import Spool
    from dicom_node.storage.worker_tokens import Workers

    config = load_config(config_path)
    Spool(config.spool_directory, 0)  # makes the folder with its mode on a node that never ran
    return Workers(Store(config.ledger_path))
