"""What `status`, `jobs`, `show` and `model list` say: plain values for programs, tables for people. No patient data."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dicom_node.commitments import Commitments, committing
from dicom_node.config import Config
from dicom_node.job import Delivery, Job
from dicom_node.ledger import Ledger
from dicom_node.outbox import Outbox

_STYLE = {"segmented": "green", "delivered": "green", "failed": "red", "refused": "red", "skipped": "yellow"}


def status(config: Config, ledger: Ledger) -> dict[str, Any]:
    """The node at a glance."""
    from dicom_node.lifecycle import running, spool_of

    free = spool_of(config).free_bytes()
    return {
        "running": running(config) is not None,
        "mode": ledger.mode(),
        "jobs": ledger.counts(),
        "codes": ledger.codes(),
        "deliveries": Outbox(ledger.store).counts(),
        "uncommitted": Commitments(ledger.store, 0.0).counts(committing(config)),
        "oldest_waiting_seconds": ledger.oldest_waiting_seconds(),
        "conflicts": [{"sop_instance_uid": uid, "contents": seen} for uid, seen in ledger.conflicts()],
        "free_bytes": free,
        "reserve_bytes": config.node.reserve_mb * 1024 * 1024,
    }


def print_status(values: dict[str, Any]) -> None:
    console = Console()
    jobs = values["jobs"]
    waiting = values["oldest_waiting_seconds"]
    running = "running" if values["running"] else "not running here"
    console.print(f"node {running}, mode [bold]{values['mode']}[/]")
    console.print(
        f"films: {jobs['received']} waiting" + (f" (oldest {waiting:.0f} s)" if waiting is not None else "")
        + f", {jobs['claimed']} in work, [green]{jobs['segmented']} answered[/], [yellow]{jobs['skipped']} skipped[/],"
        f" [red]{jobs['failed']} failed[/]"
    )  # fmt: skip
    for code, count in values["codes"].items():
        console.print(f"    {code}: {count}")
    for destination, states in values["deliveries"].items():
        console.print(f"to {destination}: " + ", ".join(f"{count} {state}" for state, count in states.items() if count))
    for destination, count in values["uncommitted"].items():
        if count:
            console.print(f"to {destination}: {count} delivered, but [yellow]not committed to[/] yet")
    for conflict in values["conflicts"]:
        console.print(f"[yellow]conflict[/]: {conflict['sop_instance_uid']} came with {conflict['contents']} contents")
    low = values["free_bytes"] < values["reserve_bytes"]
    console.print(
        f"disk: {values['free_bytes'] / 1e9:.1f} GB free" + (" [red](under the reserve: films are refused)[/]" if low else "")
    )


def job_values(job: Job) -> dict[str, Any]:
    """A job as `--json` prints it."""
    return {
        "job": job.job_id,
        "state": str(job.state),
        "sop_instance_uid": job.arrival.sop_instance_uid,
        "sop_class_uid": job.arrival.sop_class_uid,
        "transfer_syntax_uid": job.arrival.transfer_syntax_uid,
        "calling_ae": job.arrival.calling_ae,
        "host": job.arrival.host,
        "received_at": _when(job.received_at),
        "finished_at": _when(job.finished_at),
        "seconds": job.seconds,
        "finding": job.finding,
        "probability": job.probability,
        "area_mm2": job.area_mm2,
        "code": job.code,
        "sentence": job.sentence,
        "model": job.model,
        "model_digest": job.model_digest,
        "same_as": job.same_as,
        "revision": job.revision,
        "generation": job.generation,
        "attempts": job.attempts,
        "crashes": job.crashes,
        "resends": job.resends,
    }


def delivery_values(delivery: Delivery) -> dict[str, Any]:
    return {
        "destination": delivery.destination,
        "role": delivery.object.role,
        "sop_instance_uid": delivery.object.sop_instance_uid,
        "sha256": delivery.object.sha256,
        "path": delivery.object.path,
        "state": str(delivery.state),
        "attempts": delivery.attempts,
        "status": None if delivery.status is None else f"{delivery.status:04X}",
        "reason": delivery.reason,
        "next_try_at": _when(delivery.next_try_at) if delivery.state == "pending" else None,
        "committed_at": _when(delivery.committed_at),
    }


def print_jobs(jobs: Sequence[Job]) -> None:
    table = Table("job", "received", "from", "state", "finding / code", "area mm²", "seconds")
    for job in jobs:
        table.add_row(
            job.job_id,
            _when(job.received_at),
            job.arrival.calling_ae,
            _styled(job.state),
            (job.finding or job.code or "") + (f" = {job.same_as}" if job.same_as else ""),
            "" if job.area_mm2 is None else f"{job.area_mm2:.0f}",
            "" if job.seconds is None else f"{job.seconds:.1f}",
        )
    Console().print(table)


def print_job(job: Job, deliveries: Sequence[Delivery]) -> None:
    console = Console()
    for key, value in job_values(job).items():
        if value is not None:
            console.print(f"{key.replace('_', ' '):>20}  {_styled(value) if key == 'state' else value}", highlight=False)
    for one in deliveries:
        values = delivery_values(one)
        status = f" ({values['status']})" if values["status"] else ""
        waits = f", next try {values['next_try_at']}" if values["next_try_at"] else ""
        console.print(
            f"{one.object.role} to {one.destination}: {_styled(one.state)}{status} after {one.attempts} tries, "
            f"{one.reason or 'waits for the sender'}{waits}"
            + (f" (committed {values['committed_at']})" if values["committed_at"] else ""),
            highlight=False,
        )


def models(config: Config) -> list[dict[str, Any]]:
    """The shipped model and the configured one, each with what is wrong with it, if anything."""
    from dicom_node.config import Segment
    from dicom_node.errors import ConfigError
    from dicom_node.model import load_model, model_folder

    rows = []
    for settings in {model_folder(one): one for one in (Segment(), config.segment)}.values():
        row: dict[str, Any] = {"folder": str(model_folder(settings)), "configured": settings.model == config.segment.model}
        try:
            artifact = load_model(settings)
        except ConfigError as error:
            row["problem"] = str(error)
        else:
            manifest = artifact.manifest
            row |= {
                "name": manifest.name,
                "version": manifest.version,
                "intended_use": manifest.intended_use,
                "sha256": artifact.sha256,
            }
        rows.append(row)
    return rows


def print_models(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("", "name", "version", "intended use", "weights sha256", "folder")
    for row in rows:
        mark = "*" if row["configured"] else ""
        if "problem" in row:
            table.add_row(mark, f"[red]{row['problem']}[/]", "", "", "", row["folder"])
        else:
            table.add_row(mark, row["name"], row["version"], row["intended_use"], row["sha256"][:12], row["folder"])
    Console().print(table)


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _styled(state: str) -> str:
    return f"[{_STYLE[state]}]{state}[/]" if state in _STYLE else str(state)
