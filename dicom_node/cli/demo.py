"""`demo`: the whole path with nothing to prepare. A real node in child processes, real C-STORE in, real C-STORE out.

The films are phantoms with a known truth, or files of the user. They go to the demo PACS, or to a real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pynetdicom import AE
from pynetdicom.presentation import build_context
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dicom_node.cli import film_report
from dicom_node.cli.demo_pacs import DemoPacs
from dicom_node.cli.supervisor import running
from dicom_node.runtime.config import Config, load
from dicom_node.runtime.config_sections import Segment
from dicom_node.runtime.errors import ConfigError, Missing
from dicom_node.storage.ledger import Ledger
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import FINISHED, INDETERMINATE, DeliveryState, Job, State
from dicom_node.work.model import model_folder, runnable_model, with_model
from segmenter.errors import Refused
from segmenter.film.parse import UNREADABLE, parse

SENDER_AE, NODE_AE = "DEMO", "PTXSEG"
START_SECONDS, ANSWER_SECONDS = 60.0, 600.0

# (seed, pneumothorax, kind, photometric, bits, shape): six films of different makes, two of them without.
PHANTOMS = (
    (7, True, "DX", "MONOCHROME2", 12, (2500, 2048)),
    (131, True, "CR", "MONOCHROME1", 10, (2140, 1760)),
    (13, False, "DX", "MONOCHROME1", 14, (2022, 2022)),
    (69, True, "SC", "MONOCHROME2", 8, (1024, 1024)),
    (92, True, "DX", "MONOCHROME2", 16, (2336, 2836)),
    (16, False, "CR", "MONOCHROME2", 12, (2500, 2048)),
)


@dataclass(frozen=True)
class DemoFilm:
    """A film to send: `name` for the output files; `truth` (H, W) bool when it is known."""

    name: str
    file: Path
    truth_file: Path | None = None
    truth: NDArray[np.bool_] | None = None


def run_demo(files: Sequence[Path], pacs: str | None, out: Path, as_json: bool, model: Path | None = None) -> int:
    """`model`: a folder in place of the shipped demo model. Returns the exit code. Raises ConfigError and Missing."""
    settings = with_model(Segment(), model)
    runnable_model(settings)
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="segmenter-demo-") as scratch, contextlib.ExitStack() as stack:
        if pacs is None:
            demo_pacs = stack.enter_context(DemoPacs(out / "pacs").serving())
            pacs = f"127.0.0.1:{demo_pacs.port}:{demo_pacs.ae_title}"
        config_file = _write_config(Path(scratch), pacs, settings.model)
        config = load(config_file)
        if model is not None and config.segment.model != settings.model:
            raise ConfigError("SEGMENTER_SEGMENT__MODEL in the environment names another model than --model; unset one of them")
        films = [_given(file) for file in files] or _draw(out, quiet=as_json)
        port = stack.enter_context(_node(config_file, config))
        ledger = Ledger(config.ledger_path)
        sent = {film.name: _send(film, port) for film in films}
        _wait(ledger, [uid for uid in sent.values() if uid], quiet=as_json)
        made_by = film_report.model_values(model_folder(config.segment))
        demo = made_by["intended_use"] == "demo"
        found = [_answer(film, sent[film.name], ledger, config, out, demo) for film in films]
    report = film_report.write_report(out, found, made_by)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        film_report.print_table(found, out, report["model"])
    return film_report.exit_code(found)


# -- films -----------------------------------------------------------------------------------------------------


def _given(file: Path) -> DemoFilm:
    return DemoFilm(file.stem, file.resolve())


def _draw(out: Path, quiet: bool) -> list[DemoFilm]:
    from segmenter.phantom.dicom import phantom_dataset
    from segmenter.phantom.draw import draw_phantom

    (out / "films").mkdir(exist_ok=True)
    films = []
    with _progress(quiet) as progress:
        task = progress.add_task("drawing phantom films", total=len(PHANTOMS))
        for number, (seed, positive, kind, photometric, bits, shape) in enumerate(PHANTOMS, start=1):
            drawn = draw_phantom(seed, shape=shape, pneumothorax=positive)
            file = out / "films" / f"film-{number}.dcm"
            phantom_dataset(drawn, kind=kind, photometric=photometric, bits=bits).save_as(file, enforce_file_format=True)  # type: ignore[arg-type]
            truth = out / f"film-{number}-truth.png"
            Image.fromarray(drawn.truth.astype(np.uint8) * 255).save(truth)
            films.append(DemoFilm(file.stem, file, truth, drawn.truth))
            progress.advance(task)
    return films


# -- the node --------------------------------------------------------------------------------------------------


def _write_config(scratch: Path, pacs: str, model: Path) -> Path:
    host, port, ae_title = _address(pacs)
    file = scratch / "config.toml"
    file.write_text(
        f"""
[node]
directory = "node"
[receive]
host = "127.0.0.1"
port = 0
ae_title = "{NODE_AE}"
allowed = {{ {SENDER_AE} = ["127.0.0.1"] }}
[peers.PACS]
host = {json.dumps(host)}
port = {port}
ae_title = {json.dumps(ae_title)}
[send]
ae_title = "{NODE_AE}"
destinations = ["PACS"]
first_delay_seconds = 1
[segment]
model = {json.dumps(str(model), ensure_ascii=False)}
[log]
level = "WARNING"
""",
        "utf-8",
    )
    return file


def _address(pacs: str) -> tuple[str, int, str]:
    host, _, rest = pacs.partition(":")
    port, _, ae_title = rest.partition(":")
    if not (host and port.isdigit() and ae_title):
        raise ConfigError(f"--pacs {pacs}: write it as HOST:PORT:AE, for example 127.0.0.1:4242:ORTHANC")
    return host, int(port), ae_title


@contextlib.contextmanager
def _node(config_file: Path, config: Config) -> Iterator[int]:
    """A node in its own processes, as an administrator runs it; yields its port. Raises ConfigError and Missing."""
    command = [sys.executable, "-m", "dicom_node.cli.main", "run", "--config", str(config_file)]
    node = subprocess.Popen(command)
    try:
        until = time.monotonic() + START_SECONDS
        while (state := running(config)) is None:
            if node.poll() is not None:
                raise ConfigError("the node did not start; its message is above")
            if time.monotonic() > until:
                raise Missing(f"the node was not ready after {START_SECONDS:.0f} s")
            time.sleep(0.05)
        yield int(str(state["port"]))
    finally:
        node.terminate()
        try:
            node.wait(config.node.stop_seconds + 5)
        except subprocess.TimeoutExpired:
            node.kill()


def _send(film: DemoFilm, port: int) -> str | None:
    """C-STORE the film as it is; its SOP Instance UID, or None when it was not stored."""
    try:
        dataset = parse(film.file.read_bytes())
        context = build_context(dataset.SOPClassUID, [dataset.file_meta.TransferSyntaxUID])
    except (Refused, *UNREADABLE):
        return None
    ae = AE(ae_title=SENDER_AE)
    association = ae.associate("127.0.0.1", port, contexts=[context], ae_title=NODE_AE)
    if not association.is_established or not association.accepted_contexts:
        return None
    status = association.send_c_store(dataset).get("Status")
    association.release()
    return str(dataset.SOPInstanceUID) if status == 0x0000 else None


def _wait(ledger: Ledger, uids: Sequence[str], quiet: bool) -> None:
    """Until every film is finished and every object delivered or refused."""
    outbox, until = Outbox(ledger.store), time.monotonic() + ANSWER_SECONDS
    with _progress(quiet) as progress:
        task = progress.add_task("segmenting and delivering", total=len(uids))
        while time.monotonic() < until:
            done = sum(_settled(ledger, outbox, uid) for uid in uids)
            progress.update(task, completed=done)
            if done == len(uids):
                return
            time.sleep(0.1)
    click.echo(f"not every film was answered after {ANSWER_SECONDS:.0f} s", err=True)


def _settled(ledger: Ledger, outbox: Outbox, uid: str) -> bool:
    job = ledger.jobs(sop_instance_uid=uid, limit=1)[0]
    open_states = (DeliveryState.PENDING, DeliveryState.SENT)
    # A try that failed may be tried again for days; the demo reports it after the third.
    waiting = [one for one in outbox.of_job(job.answered_by) if one.state in open_states and one.attempts < 3]
    return job.state in FINISHED and not waiting


# -- the report ------------------------------------------------------------------------------------------------


def _answer(film: DemoFilm, uid: str | None, ledger: Ledger, config: Config, out: Path, demo: bool) -> film_report.FilmAnswer:
    truth_path = str(film.truth_file) if film.truth_file else None
    if uid is None:
        sentence: str | None = (
            f"{film.file.name} was not accepted: not a DICOM film of a SOP class and transfer syntax that the node offers."
        )
        return film_report.FilmAnswer(
            str(film.file), truth_path, "failed", "not-accepted", None, None, None, None, 0.0, (), sentence
        )
    job = ledger.jobs(sop_instance_uid=uid, limit=1)[0]
    deliveries = Outbox(ledger.store).of_job(job.answered_by)
    undelivered = [one for one in deliveries if one.state is not DeliveryState.DELIVERED]
    stored = []
    for one in deliveries:
        target = out / f"{film.name}-{one.object.kind}.dcm"
        shutil.copyfile(config.spool_directory / one.object.path, target)
        os.chmod(target, 0o644)
        made = one.object
        sop = made.sop_class_uid, made.sop_instance_uid
        stored.append(film_report.WrittenObject(made.role, *sop, made.sha256, str(target), made.kind))
    mask = _mask(film, stored) if job.state is State.SEGMENTED else None
    sides = () if mask is None else _picture(film, job, mask, out, demo)
    outcome = {State.SEGMENTED: "done", State.SKIPPED: "skipped"}.get(job.state, "failed")
    if job.finding == INDETERMINATE:
        outcome = INDETERMINATE
    code, sentence = job.code, job.sentence
    if undelivered:
        outcome, code, sentence = "failed", "not-delivered", f"{undelivered[0].destination}: {undelivered[0].reason}"
    return film_report.FilmAnswer(
        file=str(film.file),
        truth=truth_path,
        outcome=outcome,
        code=code,
        finding=None if job.finding == INDETERMINATE else job.finding,
        probability=job.probability,
        area_mm2=job.area_mm2,
        dice=None if film.truth is None or mask is None else round(film_report.dice(mask, film.truth), 4),
        seconds=round((job.finished_at or time.time()) - job.received_at, 2),
        stored=tuple(stored),
        sentence=sentence,
        threshold=job.threshold,
        side=", ".join(sides) or None,
        notes=job.notes,
    )


def _mask(film: DemoFilm, stored: Sequence[film_report.WrittenObject]) -> NDArray[np.bool_]:
    """(H, W): what the delivered SEG says, read back from the file; empty when none was made."""
    for one in stored:
        if one.role == "seg":
            return np.asarray(pydicom.dcmread(one.path).pixel_array).astype(bool).reshape(_shape(film))
    return np.zeros(_shape(film), bool)


def _shape(film: DemoFilm) -> tuple[int, int]:
    header = pydicom.dcmread(film.file, stop_before_pixels=True)
    return int(header.Rows), int(header.Columns)


def _picture(film: DemoFilm, job: Job, mask: NDArray[np.bool_], out: Path, demo: bool) -> tuple[str, ...]:
    from segmenter.film.decode import decode
    from segmenter.objects.picture import outline_png
    from segmenter.values import Decision, Finding

    decision = Decision(job.finding == "pneumothorax", job.probability or 0.0, mask, job.area_mm2, 0, job.threshold or 0.0)
    outcome = "indeterminate" if job.finding == INDETERMINATE else "done"
    radiograph = decode(parse(film.file.read_bytes()))
    finding = Finding(outcome, job.code, job.sentence, radiograph, decision)  # type: ignore[arg-type]
    return outline_png(finding, out / f"{film.name}.png", demo=demo, truth=film.truth)


def _progress(quiet: bool) -> Progress:
    columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(*columns, TimeElapsedColumn(), disable=quiet)
