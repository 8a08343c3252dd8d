"""The gate as an administrator meets it: films that are not ours go through a whole node, each is counted under its code; a
film that is answered with notes carries them into the report."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pydicom
from click.testing import CliRunner
from gate_films import SKIPPED, VIEW, plain
from prometheus_client.parser import text_string_to_metric_families
from pydicom.dataset import Dataset
from quick_model import quick_settings
from servers import Node, free_port, store, wait_for

from dicom_node.association import SOP_CLASSES
from dicom_node.cli import main
from dicom_node.job import FINISHED, State
from dicom_node.local import IGNORED, IGNORED_SENTENCE
from dicom_node.standin import StandInPacs
from segmenter.gate import SkipCode
from segmenter.header import is_uid, text
from segmenter.kinds import Kind
from segmenter.notes import NoteCode

SETTINGS = {"MIN_SIDE_PX": "200", "MAX_PIXELS": "1000000", "MIN_AGE_YEARS": "1"}
RULE = '\n[[rules]]\nname = "not this one"\nall_of = { StationName = "^TEST" }\nmode = "ignore"\n'
UNREACHABLE = {SkipCode.PRESENTATION_STATE, SkipCode.STRUCTURED_REPORT, SkipCode.NOT_AN_IMAGE_CLASS}  # docs/gate.md


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


def skipped_by_code(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [one for family in families for one in family.samples]
    return {one.labels["code"]: one.value for one in samples if one.name == "segmenter_jobs_skipped"}


def test_every_skip_is_counted_under_its_code_and_notes_reach_the_report(tmp_path: Path) -> None:
    films = list(sendable())
    assert {code for code, _, _ in films} == {*SkipCode, IGNORED} - UNREACHABLE
    child = plain((*VIEW, "PatientBirthDate"), PatientAge="130W")
    for number, film in enumerate([*(film for _, _, film in films), child]):
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number}"
    port = free_port()
    settings = quick_settings() | {f"SEGMENTER_SEGMENT__{name}": value for name, value in SETTINGS.items()}
    settings |= {"SEGMENTER_SERVE__ENABLED": "true", "SEGMENTER_SERVE__PORT": str(port)}
    with StandInPacs(tmp_path / "pacs", ae_title="PACS").serving() as pacs:
        node = Node(tmp_path / "node", ("PACS", pacs.port), settings)
        node.config_file.write_text(node.config_file.read_text() + RULE)
        node.start()
        try:
            for film in [*(film for _, _, film in films), child]:
                assert store(film, node.port) == 0x0000, "a film that is not ours is taken all the same"
            node.delivered(child.SOPInstanceUID)
            wait_for(lambda: all(job.state in FINISHED for job in node.ledger.jobs(limit=100)), 60, "all answers")
            counted = skipped_by_code(f"http://127.0.0.1:{port}/metrics")
            told = json.loads(CliRunner().invoke(main, ["status", "--json", "--config", str(node.config_file)]).stdout)
        finally:
            node.stop()
    wanted = Counter(code for code, _, _ in films)
    assert counted == wanted == told["codes"]
    for code, sentence, film in films:
        job = node.job_of(film.SOPInstanceUID)
        assert (job.state, job.code, job.sentence) == (State.SKIPPED, code, sentence)
    received = [pydicom.dcmread(file) for _, file in pacs.received]
    [report] = [one for one in received if one.Modality == "SR"]
    assert {one.Modality for one in received} <= {str(Kind.SEG).upper(), "SR"}, "nothing of a film that was left out"
    assert {one.StudyInstanceUID for one in received} == {child.StudyInstanceUID} and len(received) <= 2
    said = [str(element.value) for element in report.iterall() if element.keyword == "TextValue"]
    for note in (NoteCode.VIEW_BY_TEXT, NoteCode.YOUNG_CHILD):
        assert f"{note.value}: {note.sentence}" in said
    log = node.log_text()
    assert "20230301" not in log and "011M" not in log and "130W" not in log and "young" not in log.replace("too-young", "")
