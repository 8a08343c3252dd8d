"""The verbs about single films: `jobs` and `show` only read; `retry`, `deliver`, `rerun` and `purge` act.

JOB is a job id, an unambiguous beginning of one, or the SOP Instance UID of the film or of a result.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicom_node.cli.options import config_option, json_option, open_ledger, print_json
from dicom_node.runtime.errors import ConfigError, NodeError
from dicom_node.storage.records import State

if TYPE_CHECKING:
    from dicom_node.storage.ledger import Ledger
    from dicom_node.storage.records import Delivery, Job

EXIT_NOT_DONE = 1
job_argument = click.argument("name", metavar="JOB")


@click.command()
@click.option("--state", type=click.Choice([*State]), help="Only those in this state.")
@click.option("--uid", help="SOP Instance UID of the film.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
@config_option
@json_option
def jobs(state: str | None, uid: str | None, limit: int, config_path: Path | None, as_json: bool) -> None:
    """The newest jobs."""
    from dicom_node.cli import tables

    _, ledger = open_ledger(config_path)
    found = ledger.jobs(state=state, sop_instance_uid=uid, limit=limit)
    print_json([tables.job_values(job) for job in found]) if as_json else tables.print_jobs(found)


@click.command()
@job_argument
@config_option
@json_option
def show(name: str, config_path: Path | None, as_json: bool) -> None:
    """One job in full: what came, which rule decided and why, what was found, where the result is.

    JOB: job id or SOP Instance UID (of the film or of a result). Several jobs of one UID are listed.
    """
    from dicom_node.cli import tables
    from dicom_node.storage.destinations import Router
    from dicom_node.storage.outbox import Outbox

    config, ledger = open_ledger(config_path)
    found = ledger.find(name)
    if len(found) > 1:
        print_json([tables.job_values(job) for job in found]) if as_json else _list(found)
        return
    [job] = found
    deliveries = Outbox(ledger.store).of_job(job.answered_by)
    routes, made = Router.of(config).routes(job.arrival), ledger.objects(job.answered_by)
    if as_json:
        values = tables.job_values(job) | {"routes": {route.destination: list(route.kinds) for route in routes}}
        values |= {"objects": [tables.object_values(one) for one in made]}
        print_json(values | {"deliveries": [tables.delivery_values(one) for one in deliveries]})
    else:
        tables.print_job(job, routes, made, deliveries)


def _list(found: list[Job]) -> None:
    from dicom_node.cli import tables

    click.echo(f"{len(found)} jobs have this SOP Instance UID; `show JOB` shows one of them:")
    tables.print_jobs(found)


@click.command()
@job_argument
@config_option
def retry(name: str, config_path: Path | None) -> None:
    """Send the stored objects of a job's refused deliveries again; the film is not segmented again.

    Deliveries that wait for their next try are sent by `deliver --now`.
    """
    from dicom_node.storage.outbox import Outbox

    _, ledger = open_ledger(config_path)
    job, outbox = ledger.one(name), Outbox(ledger.store)
    count = outbox.retry(job.answered_by)
    if count:
        click.echo(f"{_deliveries(count)} sent again{_unless_paused(ledger)}")
        return
    click.echo("Nothing to retry: no refused delivery whose objects are still here.")
    for destination in sorted({one.destination for one in outbox.of_job(job.answered_by) if one.state == "pending"}):
        click.echo(f"Deliveries to {destination} wait for their next try; `deliver --now {destination}` sends them at once.")


@click.command()
@click.argument("destination", required=False, metavar="[DESTINATION]")
@click.option("--now", is_flag=True, help="Send what waits for its next try at once.")
@config_option
@json_option
def deliver(destination: str | None, now: bool, config_path: Path | None, as_json: bool) -> None:
    """Deliveries that wait, by destination; with --now send them at once, for example when a PACS is back.

    Refused deliveries are not among them: `retry JOB` sends those again.
    """
    from dicom_node.storage.outbox import Outbox

    config, ledger = open_ledger(config_path)
    outbox = Outbox(ledger.store)
    counts = outbox.counts()
    if destination is not None and destination not in counts and destination not in config.peers:
        known = ", ".join(sorted({*config.peers, *counts})) or "none"
        raise ConfigError(f"{destination} is not a destination of this node; known: {known}")
    found = outbox.make_due(destination) if now else _pending(counts, destination)
    if as_json:
        print_json(found)
        return
    for name, count in found.items():
        click.echo(f"{name}: {_deliveries(count)} due now{_unless_paused(ledger)}" if now else f"{name}: {count} waiting")
    if not found:
        click.echo(f"No delivery waits{f' to {destination}' if destination else ''}.")
    elif not now:
        click.echo("`deliver --now` sends them at once.")
    refused = sum(states["refused"] for name, states in counts.items() if destination in (None, name))
    if refused:
        click.echo(f"{_deliveries(refused)} refused: fix the cause, then `retry JOB`.")


def _pending(counts: dict[str, dict[str, int]], destination: str | None) -> dict[str, int]:
    return {name: states["pending"] for name, states in counts.items() if states["pending"] and destination in (None, name)}


@click.command()
@job_argument
@config_option
def rerun(name: str, config_path: Path | None) -> None:
    """Answer a finished film again with the configured model; the same model sends its stored objects again."""
    config, ledger = open_ledger(config_path)
    job = ledger.one(name)
    if job.arrival.path and not (config.spool_directory / job.arrival.path).exists():
        raise NodeError(f"job {job.job_id}: its film is missing from the spool and cannot be read; send the film again")
    removed = [made.kind for made in ledger.objects(job.answered_by) if made.path is None]
    job = ledger.rerun(job.job_id)
    click.echo(f"job {job.job_id} waits for a worker (generation {job.generation}){_unless_paused(ledger)}")
    if removed:
        click.echo(f"Its earlier results ({', '.join(removed)}) were removed from this disk and cannot be sent again;")
        click.echo("only another model makes new ones.")
    if job.arrival.mode == "shadow":
        click.echo("It came in shadow mode: nothing is sent.")


@click.command()
@job_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def purge(name: str, yes: bool, config_path: Path | None) -> None:
    """Delete the film and objects of a finished job; its UIDs and sha256 stay in the ledger.

    Asks first. What is deleted cannot be sent again, and the same model does not make it again.
    """
    from dicom_node.storage.outbox import Outbox
    from dicom_node.storage.spool import Spool

    config, ledger = open_ledger(config_path)
    job = ledger.purgeable(ledger.one(name).job_id)
    kinds = [made.kind for made in ledger.objects(job.job_id) if made.path]
    here = (["the film"] if job.arrival.path else []) + ([f"the results ({', '.join(kinds)})"] if kinds else [])
    if not here:
        click.echo(f"Nothing to delete: job {job.job_id} has no files here any more.")
        return
    what = f"{' and '.join(here)} of job {job.job_id}"
    if not yes and not sys.stdin.isatty():
        raise ConfigError(f"purge would delete {what} for good, and there is no terminal to confirm it; add --yes")
    if not yes and not click.confirm(f"{_undelivered(Outbox(ledger.store).of_job(job.job_id))}Delete {what} for good?"):
        click.echo("Nothing was deleted.")
        sys.exit(EXIT_NOT_DONE)
    paths = ledger.purge(job.job_id)
    spool = Spool.of(config)
    for path in paths:
        spool.delete(path)
    click.echo(f"{len(paths)} files deleted")


def _undelivered(deliveries: list[Delivery]) -> str:
    missing = sorted({one.destination for one in deliveries if one.state != "delivered"})
    return f"{', '.join(missing)} did not get all of the results. " if missing else ""


def _deliveries(count: int) -> str:
    return "1 delivery" if count == 1 else f"{count} deliveries"


def _unless_paused(ledger: Ledger) -> str:
    return "; the node is paused: `resume` it first" if ledger.mode() == "paused" else ""
