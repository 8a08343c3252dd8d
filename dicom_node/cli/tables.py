"""What `status`, `jobs`, `show` and `model list` print: plain values for programs, tables for people. No patient data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape

from dicom_node.cli import terminal
from dicom_node.cli.options import time_text
from dicom_node.runtime.config import Config
from dicom_node.storage.commitments import Commitments, committing
from dicom_node.storage.destinations import Route
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.records import Delivery, DeliveryState, Job, State, StoredObject
from segmenter.objects.sentences import ENGLISH

_STYLE = {"segmented": "green", "delivered": "green", "failed": "red", "refused": "red", "skipped": "yellow"}
_LABELS = {
    "sop_instance_uid": "SOP Instance UID", "sop_class_uid": "SOP Class UID", "transfer_syntax_uid": "Transfer Syntax UID",
    "calling_ae": "calling AE title", "called_ae": "called AE title", "area_mm2": "area", "seconds": "time in work",
}  # fmt: skip
_QUANTILES = {"0.5": "median", "0.9": "90th percentile", "0.99": "99th percentile", "1": "longest"}
_MODES = {"paused": "paused: films are taken, nothing is segmented or sent", "draining": "draining: no new films are taken"}


def status(config: Config, ledger: Ledger) -> dict[str, Any]:
    """The node in figures, the same as /metrics."""
    from dicom_node.storage import statistics
    from dicom_node.storage.instance_lock import running_verbs
    from dicom_node.storage.spool import Spool
    from dicom_node.work.model import model_in_force

    found = statistics.read(config, ledger.store, Spool.of(config))
    model = model_in_force(config)
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
    """`values` of `status`; `warn_days`: how long before its removal a film is announced."""
    console = terminal.console(soft_wrap=True)
    jobs, model, mode = values["jobs"], values["model"], values["mode"]
    standing = _MODES.get(mode) or ("" if values["running"] else "not paused")
    console.print(f"node [bold]{'running' if values['running'] else 'stopped'}[/]" + (f" ({standing})" if standing else ""))
    console.print(f"model: {escape(model['name'])} {escape(model['version'])} ({model['digest'][:12]})" if model else
                  "model: [red]cannot be loaded[/]; `check` says why")  # fmt: skip
    for name, queue in values["queues"].items():
        oldest = queue["oldest_seconds"]
        age = "" if oldest is None else f" (oldest: {terminal.duration(oldest)})"
        console.print(f"{name} films: {queue['waiting']} waiting{age}, {queue['in_work']} in work")
    found = ", ".join(f"{count} {name}" for name, count in values["findings"].items())
    console.print(
        f"finished: [green]{jobs['segmented']} answered[/] ({found}),"
        f" [yellow]{jobs['skipped']} skipped[/], [red]{jobs['failed']} failed[/]; {values['films']['resent']} sent again"
    )
    for code, count in values["codes"].items():
        console.print(f"    {code}: {count}")
    for name, stage in values["stages"].items():
        if stage["films"]:
            times = ", ".join(f"{_QUANTILES[q]} {seconds:.1f} s" for q, seconds in stage["seconds"].items())
            console.print(f"{name} time, last hour: {times} (of {stage['films']})")
    for one in values["delivery_statuses"]:
        answer = "" if one["status"] == "none" else f" (last answer {one['status']})"
        console.print(f"to {one['destination']}: {one['count']} {_styled(one['state'])}{answer}")
    for destination, seconds in values["undelivered_seconds"].items():
        console.print(f"to {destination}: oldest undelivered: {terminal.duration(seconds)}")
    for destination, count in values["uncommitted"].items():
        if count:
            console.print(f"to {destination}: {count} delivered, but [yellow]not committed to[/] yet")
    for conflict in values["conflicts"]:
        console.print(f"[yellow]conflict[/]: {conflict['sop_instance_uid']} came with {conflict['contents']} contents")
    if count := values["expiring"]:
        films = "1 film without a delivered answer[/] is" if count == 1 else f"{count} films without a delivered answer[/] are"
        console.print(f"[red]{films} removed within {warn_days:g} days")
    console.print(f"disk: {_disk(values)}")


def _disk(values: dict[str, Any]) -> str:
    """The same figures as in `check`."""
    text = f"{terminal.megabytes(values['free_bytes'])} free, {terminal.megabytes(values['reserve_bytes'])} stay free"
    if values["free_bytes"] < values["reserve_bytes"]:
        return text + " [red](under the reserve: films are refused)[/]"
    if values["free_bytes"] < values["watermark_bytes"]:
        return text + " [yellow](under the watermark: delivered work is removed early)[/]"
    return text


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
        "threshold": job.threshold,
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
    """A delivery as `--json` prints it; times in ISO 8601, local."""
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
    """Fits 80 columns: there the code is below the state, and a long AE title breaks."""
    console = terminal.console()
    columns, numbers = ("job", "received", "from", "result", "prob.", "mm²", "s"), ("prob.", "mm²", "s")
    table = terminal.table(console, *columns, whole=("job", "received", "result"), numbers=numbers)
    for job in jobs:
        table.add_row(
            job.job_id,
            terminal.short_time(job.received_at),
            escape(job.arrival.calling_ae),
            (" " if terminal.is_wide(console) else "\n").join(_result(job)),
            terminal.percent(job.probability, job.threshold),
            "" if job.area_mm2 is None else f"{job.area_mm2:.0f}",
            "" if job.seconds is None else f"{job.seconds:.1f}",
        )
    console.print(table)


def _result(job: Job) -> list[str]:
    """The finding or the state, with the code where there is one; marked in shadow mode."""
    head = job.finding or _styled(job.state)
    said = [f"{head}:", job.code] if job.code else [head]
    said += ["(shadow)"] if job.arrival.mode == "shadow" else []
    said += [f"rev {job.revision}"] if job.revision > 1 else []
    return said + (["same as", job.same_as] if job.same_as else [])


def object_values(made: StoredObject) -> dict[str, Any]:
    """An object that was made, sent or not; `path` relative to the spool, None once it was removed."""
    return {"kind": made.kind, "sop_instance_uid": made.sop_instance_uid, "sha256": made.sha256, "path": made.path}


def print_job(job: Job, routes: Sequence[Route], made: Sequence[StoredObject], deliveries: Sequence[Delivery]) -> None:
    """`routes`: where its results go by the present configuration."""
    console = terminal.console(soft_wrap=True)
    values = job_values(job) | {
        "probability": terminal.probability(job.probability, job.threshold) or None,
        "area_mm2": terminal.area(job.area_mm2) or None,
        "seconds": None if job.seconds is None else f"{job.seconds:.1f} s",
    }
    for key, value in values.items():
        if value is not None and key not in ("notes", "threshold"):
            label = _LABELS.get(key, key.replace("_", " "))
            console.print(f"{label:>20}  {_styled(value) if key == 'state' else escape(str(value))}")
    for code in job.notes:
        console.print(f"{'note':>20}  {terminal.note(code)}")
    for route in routes if job.state not in (State.SKIPPED, State.FAILED) else ():
        console.print(f"{'goes to':>20}  {route.destination}: {', '.join(route.kinds)}")
    if job.arrival.mode == "shadow":
        console.print(f"{'':>20}  in shadow mode: nothing is sent")
    if any(thing.intended_use == "demo" for thing in made):
        console.print(f"{'':>20}  [bold red]{ENGLISH.demo_notice}[/]")
    for thing in made:
        removed = "" if thing.path else " (removed)"
        console.print(f"{'made':>20}  {thing.kind} {thing.sop_instance_uid}{removed}")
    for one in deliveries:
        console.print(_delivery(one))
    _print_remedies(job, deliveries)


def _delivery(one: Delivery) -> str:
    values = delivery_values(one)
    status = f" ({values['status']})" if values["status"] else ""
    waits = f", next try {values['next_try_at']}" if values["next_try_at"] else ""
    tries = "1 try" if one.attempts == 1 else f"{one.attempts} tries"
    committed = f" (committed {values['committed_at']})" if values["committed_at"] else ""
    reason = escape(one.reason or "not sent yet")
    return f"{one.object.kind} to {one.destination}: {_styled(one.state)}{status} after {tries}, {reason}{waits}{committed}"


def _print_remedies(job: Job, deliveries: Sequence[Delivery]) -> None:
    if any(one.state is DeliveryState.REFUSED and one.object.path for one in deliveries):
        terminal.console(soft_wrap=True).print(f"`retry {job.job_id}` sends the refused objects again")
    waiting = {one.destination for one in deliveries if one.state is DeliveryState.PENDING and one.attempts}
    for destination in sorted(waiting):
        terminal.console(soft_wrap=True).print(f"`deliver --now {destination}` sends the waiting objects at once")


def models(config: Config) -> list[dict[str, Any]]:
    """The shipped model and the configured one, each with its problem, if it has one."""
    from dicom_node.runtime.config_sections import Segment
    from dicom_node.runtime.errors import ConfigError
    from dicom_node.work.model import load_model, model_folder

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
    """Line by line: folders and digests are too long for a table, and are copied from here."""
    console = terminal.console(soft_wrap=True)
    for row in rows:
        configured = " (configured)" if row["configured"] else ""
        if "problem" in row:
            console.print(f"[red]{escape(row['problem'])}[/]{configured}")
        else:
            use = "DEMO, not for clinical use" if row["intended_use"] == "demo" else row["intended_use"]
            console.print(f"{escape(row['name'])} {escape(row['version'])}: {escape(use)}{configured}")
            console.print(f"    weights sha256 {row['sha256']}")
        console.print(f"    {escape(row['folder'])}")


def _styled(state: str) -> str:
    return f"[{_STYLE[state]}]{state}[/]" if state in _STYLE else str(state)
