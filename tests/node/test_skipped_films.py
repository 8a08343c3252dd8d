"""The gate as an administrator meets it: films that are not ours go from the receiver to /metrics, each is counted under its
code; a film that is answered with notes carries them into the report and the ledger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pydicom
from click.testing import CliRunner
from gate_films import SKIPPED, VIEW, plain
from pydicom.dataset import Dataset
from quick_model import quick_model
from receiver_node import send
from watched_node import Site, get, samples, watched

from dicom_node.cli.main import main
from dicom_node.dimse.contexts import SOP_CLASSES
from dicom_node.storage.local_queue import IGNORED, IGNORED_SENTENCE, LocalQueue
from dicom_node.storage.outbox import Outbox
from dicom_node.storage.records import State
from dicom_node.work.job_runner import JobRunner
from dicom_node.work.model import load_model, segment_settings
from segmenter.engine import Segmenter
from segmenter.film.gate import SkipCode
from segmenter.film.header import is_uid, text
from segmenter.notes import NoteCode

RULE = '[[rules]]\nname = "not this one"\nall_of = { StationName = "^TEST" }\nmode = "ignore"\n'
UNREACHABLE = {SkipCode.PRESENTATION_STATE, SkipCode.STRUCTURED_REPORT, SkipCode.NOT_AN_IMAGE_CLASS}  # docs/use/gate.md


def sendable() -> Iterator[tuple[str, str, Dataset]]:
    """(code, sentence, film with a UID of its own) of what a modality can send."""
    seen: Counter[SkipCode] = Counter()
    for code, source in SKIPPED:
        if source.SOPClassUID in SOP_CLASSES.values() and is_uid(text(source, "SOPInstanceUID")):
            seen[code] += 1
            if seen[code] == 1 or code is SkipCode.LATERAL_VIEW:  # of one code several, so that a count is more than a flag
                yield code.value, code.sentence, deepcopy(source)
    ignored = plain()
    ignored.StationName = "TEST1"
    yield IGNORED, IGNORED_SENTENCE, ignored


def segment() -> str:
    return (
        f"[segment]\nmodel = '{quick_model()}'\ndevice = 'cpu'\nthreads = 1\nmin_side_px = 200\nmax_pixels = 1000000\n"
        "min_age_years = 1\n"
    )


def test_every_skip_is_counted_under_its_code_and_notes_reach_the_report(tmp_path: Path) -> None:
    films = list(sendable())
    assert {code for code, _, _ in films} == {*SkipCode, IGNORED} - UNREACHABLE
    child = plain((*VIEW, "PatientBirthDate"), PatientAge="130W")
    for number, film in enumerate([*(film for _, _, film in films), child]):
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number}"
    site = Site(tmp_path, more=RULE + segment())
    site.start()
    try:
        for film in [*(film for _, _, film in films), child]:
            assert send(site.port, film) == 0x0000, "a film that is not ours is taken all the same"
    finally:
        site.stop()
    node = LocalQueue.of(site.config, "worker")
    runner = JobRunner(node, Segmenter(load_model(site.config.segment), segment_settings(site.config.segment)))
    while claim := runner.claim():
        runner.answer(claim)
    with watched(site.config) as url:
        counted = samples(get(url + "/metrics")[1])["segmenter_jobs_skipped"]
    told = json.loads(CliRunner().invoke(main, ["status", "--json", "--config", str(site.file)]).stdout)
    wanted = Counter(code for code, _, _ in films)
    assert {dict(labels)["code"]: count for labels, count in counted.items()} == wanted == told["codes"]

    jobs = {job.arrival.sop_instance_uid: job for job in site.ledger.jobs(limit=100)}
    for code, sentence, film in films:
        job = jobs[film.SOPInstanceUID]
        assert (job.state, job.code, job.sentence) == (State.SKIPPED, code, sentence)
        assert not Outbox(site.ledger.store).of_job(job.job_id), "nothing is sent of it"
    assert jobs[child.SOPInstanceUID].state is State.SEGMENTED
    sent = {one.object.role: one.object.path for one in Outbox(site.ledger.store).of_job(jobs[child.SOPInstanceUID].job_id)}
    report = pydicom.dcmread(site.config.spool_directory / sent["sr"])
    said = [str(element.value) for element in report.iterall() if element.keyword == "TextValue"]
    for note in (NoteCode.VIEW_BY_TEXT, NoteCode.YOUNG_CHILD):
        assert f"{note.value}: {note.sentence}" in said
    show = ["show", jobs[child.SOPInstanceUID].job_id, "--config", str(site.file)]
    assert {note.value for note in (NoteCode.VIEW_BY_TEXT, NoteCode.YOUNG_CHILD)} <= set(
        json.loads(CliRunner().invoke(main, [*show, "--json"]).stdout)["notes"]
    )
    assert f"{NoteCode.VIEW_BY_TEXT}: {NoteCode.VIEW_BY_TEXT.sentence}" in CliRunner().invoke(main, show).stdout
