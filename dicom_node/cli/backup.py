"""`segmenter-worker backup` and `restore`."""

from __future__ import annotations

from pathlib import Path

import click

from dicom_node.cli.options import config_option, json_option, load_config, open_ledger, print_json

_SHOWN = 10  # jobs that are named


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--keep", type=click.IntRange(1), help="FILE is a folder: keep this many copies, remove the oldest.")
@config_option
def backup(file: Path, keep: int | None, config_path: Path | None) -> None:
    """A consistent copy of the ledger while the node runs: FILE, or a file named by the time when FILE is a folder."""
    from dicom_node.storage.backups import back_up

    _, ledger = open_ledger(config_path)
    made = back_up(ledger.store, file, keep)
    click.echo(f"{made}: {made.stat().st_size} bytes")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@config_option
@json_option
def restore(file: Path, config_path: Path | None, as_json: bool) -> None:
    """Replace the ledger by a copy that `backup` made, while the node is stopped; the replaced ledger is kept."""
    from dicom_node.storage.backups import restore

    config = load_config(config_path)
    done = restore(config, file)
    if as_json:
        print_json({key: str(value) if isinstance(value, Path) else value for key, value in vars(done).items()})
        return
    click.echo(f"{config.ledger_path}: restored from {file}")
    if done.kept:
        click.echo(f"the replaced ledger is {done.kept}")
    for what, jobs in (("the film", done.films), ("an object", done.objects)):
        if jobs:
            named = ", ".join(jobs[:_SHOWN]) + (" ..." if len(jobs) > _SHOWN else "")
            click.echo(f"{len(jobs)} jobs lack {what} in the spool (send the film again, or restore the spool): {named}")
    if done.unnamed:
        click.echo(
            f"{done.unnamed} films came after this copy was made; they are in {done.saved}: send them to this node again"
        )
    if done.mode != "running":
        click.echo(f"the node was {done.mode} when the copy was made; `resume` it")
