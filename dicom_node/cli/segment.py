"""`segment`: films in, DICOM objects and pictures out, without network and queue."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click

from dicom_node.cli import film_report
from dicom_node.runtime.config import Config
from dicom_node.work.model import model_folder, runnable_model, segment_settings, with_model
from segmenter.engine import Segmenter
from segmenter.errors import Refused
from segmenter.film.parse import UNREADABLE, parse
from segmenter.objects.kinds import kinds_for
from segmenter.objects.picture import outline_png


def segment_files(config: Config, files: Sequence[Path], out: Path, as_json: bool, model: Path | None = None) -> int:
    """Answer each file, write its objects and its picture into `out` and report.json. `model`: a folder in place of the
    configured one. Returns the exit code. Raises ConfigError."""
    settings = with_model(config.segment, model)
    segmenter = Segmenter(runnable_model(settings), segment_settings(settings))
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    names = _distinct_names(files)
    found = [_answer(segmenter, file, out, names[file], config.send.objects) for file in dict.fromkeys(files)]
    report = film_report.write_report(out, found, film_report.model_values(model_folder(settings)))
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        film_report.print_table(found, out, report["model"])
    return film_report.exit_code(found)


def _answer(segmenter: Segmenter, file: Path, out: Path, name: str, objects: tuple[str, ...]) -> film_report.FilmAnswer:
    started = time.monotonic()
    try:
        source = parse(file.read_bytes())
    except Refused as problem:
        return _failed(file, problem.code, problem.sentence)
    except UNREADABLE as error:
        return _failed(file, "not-dicom", f"{file.name} cannot be read as DICOM ({type(error).__name__}).")
    if "TransferSyntaxUID" not in getattr(source, "file_meta", {}):
        return _failed(file, "not-dicom", f"{file.name} has no File Meta with a transfer syntax: not a DICOM Part 10 file.")
    [finding] = segmenter.segment([source])
    stored = []
    try:
        made = segmenter.objects(source, finding, kinds=kinds_for(objects))
    except Refused as problem:
        return _failed(file, problem.code, problem.sentence, round(time.monotonic() - started, 3))
    for one in made:
        target = out / f"{name}-{one.kind}.dcm"
        one.dataset.save_as(target, enforce_file_format=True)
        sop = one.sop_class_uid, one.sop_instance_uid
        stored.append(film_report.WrittenObject(one.role, *sop, film_report.sha256_of(target), str(target), one.kind))
    decision, side = finding.decision, None
    if finding.radiograph is not None and decision is not None:
        side = ", ".join(outline_png(finding, out / f"{name}.png", demo=segmenter.identity.demo)) or None
    return film_report.FilmAnswer(
        file=str(file),
        truth=None,
        outcome=finding.outcome,
        code=finding.code,
        finding=finding.name,
        probability=decision.image_probability if decision else None,
        area_mm2=decision.area_mm2 if decision else None,
        dice=None,
        seconds=round(time.monotonic() - started, 3),
        stored=tuple(stored),
        sentence=finding.sentence,
        threshold=decision.image_threshold if decision else None,
        side=side,
        notes=tuple(str(note) for note in finding.radiograph.notes) if finding.radiograph else (),
    )


def _failed(file: Path, code: str, sentence: str, seconds: float = 0.0) -> film_report.FilmAnswer:
    return film_report.FilmAnswer(str(file), None, "failed", code, None, None, None, None, seconds, (), sentence)


def _distinct_names(files: Sequence[Path]) -> dict[Path, str]:
    """Output names: the stem, numbered when two files share it."""
    names: dict[Path, str] = {}
    for file in files:
        name, number = file.stem, 1
        while name in names.values() and file not in names:
            number += 1
            name = f"{file.stem}-{number}"
        names.setdefault(file, name)
    return names
