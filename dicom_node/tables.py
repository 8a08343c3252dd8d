"""What `status`, `jobs`, `show` and `model list` say: plain values for programs, tables for people. No patient data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dicom_node.commitments import Commitments, committing
from dicom_node.config import Config
from dicom_node.job import INDETERMINATE, Delivery, DeliveryState, Job, State, StoredObject
from dicom_node.ledger import Ledger
from dicom_node.options import time_text
from dicom_node.routes import Route
from segmenter.notes import NoteCode

_STYLE = {"segmented": "green", "delivered": "green", "failed": "red", "refused": "red", "skipped": "yellow"}
_SENTENCES = {note.value: note.sentence for note in NoteCode}
_QUANTILES = {"0.5": "half within", "0.9": "90 % within", "0.99": "99 % within", "1": "longest"}


def status(config: Config, ledger: Ledger) -> dict[str, Any]:
    """The node at a glance: the same figures as /metrics."""
    from dicom_node import figures
    from dicom_node.lifecycle import running_verbs
    from dicom_node.spool import Spool

    found = figures.read(config, ledger.store, Spool.of(config))
    model = figures.model_in_force(config)
    oldest = [one.oldest_seconds for one in found.queues if one.oldest_seconds is not None]
    deliveries: dict[str, dict[str, int]] = {}
    for one in found.deliveries:
        states = deliveries.setdefault(one.destination, {str(state): 0 for state in DeliveryState})
        states[one.state] += one.count
    return {
        "running": bool(running_verbs(config)),
        "mode": found.mode,
        "model": None if model is None else asdict(model),
        "answered_by": found.answered_by and dict(zip(("model", "digest"), found.answered_by, strict=True)),
        "films": {"received": found.received, "resent": found.resent},
        "jobs": found.states,
        "findings": found.findings,
        "codes": found.skipped | found.failed | found.indeterminate,
        "skipped": found.skipped,
        "failed": found.failed,
        "indeterminate": found.indeterminate,
        "queues": {one.name: {key: value for key, value in asdict(one).items() if key != "name"} for one in found.queues},
        "oldest_waiting_seconds": max(oldest, default=None),
        "stages": {
            one.name: {"films": one.films, "seconds": {f"{q:g}": seconds for q, seconds in one.quantiles}}
            for one in found.stages
        },
        "deliveries": deliveries,
        "delivery_statuses": [asdict(one) for one in found.deliveries],
        "undelivered_seconds": found.undelivered_seconds,
        "associations": found.associations,
        "uncommitted": Commitments(ledger.store, 0.0).counts(committing(config)),
        "conflicts": [{"sop_instance_uid": uid, "contents": seen} for uid, seen in ledger.conflicts()],
        "expiring": found.expiring,
        "free_bytes": found.free_bytes,
        "reserve_bytes": found.reserve_bytes,
        "watermark_bytes": found.watermark_bytes,
    }


def print_status(values: dict[str, Any], warn_days: float) -> None:
    console = Console(highlight=False, soft_wrap=True)
    jobs, model = values["jobs"], values["model"]
    running = "running" if values["running"] else "not running here"
    console.print(f"node {running}, mode [bold]{values['mode']}[/]")
    console.print(f"model: {model['name']} {model['version']} ({model['digest'][:12]})" if model else
                  "model: [red]can not be loaded[/], `check` says why")  # fmt: skip
    for name, queue in values["queues"].items():
        oldest = queue["oldest_seconds"]
        age = "" if oldest is None else f" (oldest {oldest:.0f} s)"
        console.print(f"{name} films: {queue['waiting']} waiting{age}, {queue['in_work']} in work")
    console.print(
        f"finished: [green]{jobs['segmented']} answered[/] ({values['findings']['pneumothorax']} with pneumothorax,"
        f" {values['findings'][INDETERMINATE]} indeterminate),"
        f" [yellow]{jobs['skipped']} skipped[/], [red]{jobs['failed']} failed[/]; {values['films']['resent']} came again"
    )
    for code, count in values["codes"].items():
        console.print(f"    {code}: {count}")
    for name, stage in values["stages"].items():
        if stage["films"]:
            times = ", ".join(f"{_QUANTILES[q]} {seconds:.1f} s" for q, seconds in stage["seconds"].items())
            console.print(f"{name}, last hour, {stage['films']} times: {times}")
    for one in values["delivery_statuses"]:
        answer = "" if one["status"] == "none" else f" (last answer {one['status']})"
        console.print(f"to {one['destination']}: {one['count']} {_styled(one['state'])}{answer}")
    for destination, seconds in values["undelivered_seconds"].items():
        console.print(f"to {destination}: the oldest waits since {seconds:.0f} s")
    for destination, count in values["uncommitted"].items():
        if count:
            console.print(f"to {destination}: {count} delivered, but [yellow]not committed to[/] yet")
    for conflict in values["conflicts"]:
        console.print(f"[yellow]conflict[/]: {conflict['sop_instance_uid']} came with {conflict['contents']} contents")
    if values["expiring"]:
        console.print(f"[red]{values['expiring']} films without a delivered answer[/] are removed within {warn_days:g} days")
    low = values["free_bytes"] < values["reserve_bytes"]
    short = " [yellow](under the watermark: delivered work is removed early)[/]"
    console.print(
        f"disk: {values['free_bytes'] / 1e9:.1f} GB free"
        + (" [red](under the reserve: films are refused)[/]" if low
           else short if values["free_bytes"] < values["watermark_bytes"] else "")
    )  # fmt: skip


def job_values(job: Job) -> dict[str, Any]:
    """A job as `--json` prints it."""
    return {
        "job": job.job_id,
        "state": str(job.state),
        "sop_instance_uid": job.arrival.sop_instance_uid,
        "sop_class_uid": job.arrival.sop_class_uid,
        "transfer_syntax_uid": job.arrival.transfer_syntax_uid,
        "calling_ae": job.arrival.calling_ae,
        "called_ae": job.arrival.called_ae,
        "host": job.arrival.host,
        "queue": job.arrival.queue,
        "mode": job.arrival.mode,
        "rule": job.arrival.rule or None,
        "why": job.arrival.why or None,
        "received_at": time_text(job.received_at),
        "finished_at": time_text(job.finished_at),
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
        "notes": list(job.notes),
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
        "next_try_at": time_text(delivery.next_try_at) if delivery.state == "pending" else None,
        "committed_at": time_text(delivery.committed_at),
    }


def print_jobs(jobs: Sequence[Job]) -> None:
    table = Table("job", "received", "from", "state", "finding / code", "area mm²", "seconds")
    for column in (table.columns[0], table.columns[4]):
        column.no_wrap, column.overflow = True, "fold"  # what is copied from here must be whole
    for job in jobs:
        table.add_row(
            job.job_id,
            time_text(job.received_at),
            job.arrival.calling_ae,
            _styled(job.state),
            _answer(job) + (f" = {job.same_as}" if job.same_as else ""),
            "" if job.area_mm2 is None else f"{job.area_mm2:.0f}",
            "" if job.seconds is None else f"{job.seconds:.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _answer(job: Job) -> str:
    """The finding, the code where there is none, and both of an indeterminate film."""
    return ": ".join(filter(None, (job.finding, job.code)))


def object_values(made: StoredObject) -> dict[str, Any]:
    """An object that was made, sent or not; `path` relative to the spool, None once it was removed."""
    return {"kind": made.kind, "sop_instance_uid": made.sop_instance_uid, "sha256": made.sha256, "path": made.path}


def print_job(job: Job, routes: Sequence[Route], made: Sequence[StoredObject], deliveries: Sequence[Delivery]) -> None:
    """`routes`: where its results go by the configuration of now."""
    console = Console(highlight=False, soft_wrap=True)
    for key, value in job_values(job).items():
        if value is not None and key != "notes":
            console.print(f"{key.replace('_', ' '):>20}  {_styled(value) if key == 'state' else escape(str(value))}")
    for code in job.notes:
        console.print(f"{'note':>20}  {_note(code)}")
    for route in routes if job.state not in (State.SKIPPED, State.FAILED) else ():
        console.print(f"{'goes to':>20}  {route.destination}: {', '.join(route.kinds)}")
    if job.arrival.mode == "shadow":
        console.print(f"{'':>20}  in shadow mode: nothing is sent")
    for thing in made:
        removed = "" if thing.path else " (removed)"
        console.print(f"{'made':>20}  {thing.kind} {thing.sop_instance_uid}{removed}")
    for one in deliveries:
        values = delivery_values(one)
        status = f" ({values['status']})" if values["status"] else ""
        waits = f", next try {values['next_try_at']}" if values["next_try_at"] else ""
        console.print(
            f"{one.object.kind} to {one.destination}: {_styled(one.state)}{status} after {one.attempts} tries, "
            f"{escape(one.reason or 'waits for the sender')}{waits}"
            + (f" (committed {values['committed_at']})" if values["committed_at"] else ""),
        )


def _note(code: str) -> str:
    """With its sentence; the code of a newer worker alone."""
    return f"{code}: {_SENTENCES[code]}" if code in _SENTENCES else code


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
            table.add_row(mark, f"[red]{escape(row['problem'])}[/]", "", "", "", escape(row["folder"]))
        else:
            table.add_row(mark, row["name"], row["version"], row["intended_use"], row["sha256"][:12], escape(row["folder"]))
    Console().print(table)


def _styled(state: str) -> str:
    return f"[{_STYLE[state]}]{state}[/]" if state in _STYLE else str(state)
