"""Day to day operation at the command line: what is read there can be understood and copied, and done is what is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from answered_films import AnsweredFilms
from click.testing import CliRunner, Result
from programs import program
from terminals import in_terminal

from dicom_node.cli import film_report, terminal
from dicom_node.cli.main import main
from dicom_node.storage.destinations import Route
from dicom_node.storage.records import Arrival, DeliveryState, Outcome, State, StoredObject

ROOT = Path(__file__).parents[2]
UID = "1.2.826.0.1.3680043.8.498.12345678901234567890123456789012345678"
MADE = "2.25.302145678901234567890123456789012345671"


def says(films: AnsweredFilms, *arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--config", str(films.config_file)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def films(tmp_path: Path) -> AnsweredFilms:
    return AnsweredFilms(tmp_path, 104, 0)


def arrive(
    films: AnsweredFilms, uid: str = UID, number: int = 0, mode: str = "live", syntax: str = "1.2.840.10008.1.2.1"
) -> str:
    path = films.spool.write(b"film").path
    arrival = Arrival(uid, "1.2", syntax, f"s{number}", path, 4, "A" * 16, "P" * 16, "2001:db8::ffff:ffff:1")
    return films.ledger.add_arrival(replace(arrival, mode=mode)).job_id  # type: ignore[arg-type]


def answer(films: AnsweredFilms, finding: str = "pneumothorax", probability: float = 0.34159, kind: str = "seg", **more) -> str:
    claim = films.ledger.claim("w", 30)
    assert claim is not None
    path = films.spool.write_into(films.spool.folder_for(claim.job.job_id, claim.owner), f"{kind}.dcm", b"object").path
    made = StoredObject(kind, "", "1.2", more.pop("made", MADE), "sha", path, 6, "demo")
    outcome = Outcome(
        State.SEGMENTED, finding=finding, probability=probability, area_mm2=1234.567, threshold=0.1125, seconds=1.23456,
        content_sha256=claim.job.job_id, model="model 1.0", model_digest="d" * 64, objects=(made,), **more,
    )  # fmt: skip
    return films.ledger.finish(claim, outcome, [Route("PACS")]).job_id


# -- how it reads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "threshold", "text"),
    [
        (0.3412, 0.1125, "34 % (threshold 11 %)"),
        (0.1149, 0.1125, "11.5 % (threshold 11.2 %)"),  # above it, and so it reads
        (0.1124, 0.1125, "11.24 % (threshold 11.25 %)"),
        (0.9999, 0.5, "100 % (threshold 50 %)"),
        (0.5, 0.5, "50 % (threshold 50 %)"),
        (1.0, 0.0, "100 % (threshold 0 %)"),
        (0.34, None, "34 %"),
        (None, None, ""),
    ],
)
def test_a_probability_is_read_beside_its_threshold(value: float | None, threshold: float | None, text: str) -> None:
    assert terminal.probability(value, threshold) == text


@pytest.mark.parametrize(("seconds", "text"), [(9.4, "9 s"), (600, "10 min"), (20_000, "6 h"), (400_000, "5 days")])
def test_durations_are_rounded(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_tables_are_whole_in_80_columns(films: AnsweredFilms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest AE titles, hosts and codes: no line is longer, and every id, UID, code and number is there in one piece."""
    first = arrive(films)
    answer(films)
    shadow = arrive(films, "1.2.3", mode="shadow")
    answer(films, "indeterminate", 0.9996, made="2.25.7")
    failed = arrive(films, "1.2.4")
    claim = films.ledger.claim("w", 30)
    assert claim is not None
    films.ledger.finish(claim, Outcome(State.FAILED, code="comparison-only-operating-point", sentence="It is so."), [])
    films.ledger.close_association(films.ledger.open_association("A" * 16, "P" * 16, "2001:db8::ffff:ffff:1"), "released", 12)

    code, jobs = in_terminal(films.config_file, "jobs")
    monkeypatch.setenv("COLUMNS", "80")  # the others through a pipe of that width: a start less for each
    rows = {job: [line for line in jobs.splitlines() if line.startswith(job)] for job in (first, shadow, failed)}
    assert code == 0 and all(len(lines) == 1 for lines in rows.values()), jobs
    assert "34 %" in rows[first][0] and "1235" in rows[first][0] and "1.2" in rows[first][0]
    assert "100 %" in rows[shadow][0] and "indeterminate" in rows[shadow][0] and "(shadow)" in jobs
    assert "comparison-only-operating-point" in jobs and "failed" in rows[failed][0]

    journal = says(films, "journal").output
    assert "released" in journal and " 12 " in journal and "…" not in journal
    for table in (jobs, journal):
        assert max(map(len, table.splitlines())) <= 80, table
        assert "…" not in table

    shown = says(films, "show", first).output
    assert "34 % (threshold 11 %)" in shown and "1235 mm²" in shown and "1.2 s" in shown
    assert all(whole in shown.splitlines()[row] for row, whole in ((0, first), (2, UID))) and f"seg {MADE}" in shown
    assert "DEMO - NOT FOR CLINICAL USE" in shown

    models = says(films, "model", "list").output
    folder = str(ROOT / "segmenter" / "artifacts" / "demo")
    assert "DEMO, not for clinical use (configured)" in models and folder in models


def test_status_is_plain(films: AnsweredFilms) -> None:
    arrive(films)
    answer(films)
    printed = says(films, "status").output
    assert "node stopped (not paused)" in printed
    assert "to PACS: oldest undelivered: 0 s" in printed and "median 1.2 s, 90th percentile 1.2 s" in printed
    films.ledger.set_mode("paused")
    assert "node stopped (paused: films are taken, nothing is segmented or sent)" in says(films, "status").output


def test_a_disk_is_the_same_number_in_check_and_status(films: AnsweredFilms, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs

    def fixed(path: object) -> os.statvfs_result:
        values = list(real(path))  # type: ignore[arg-type]
        values[1], values[4] = 4096, 2_500_000  # f_frsize, f_bavail
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", fixed)
    assert "disk: 9765 MB free, 0 MB stay free" in says(films, "status").output
    assert "disk: 9765 MB free, 0 MB stay free" in says(films, "check").output


@pytest.mark.parametrize("use", ["demo", "research"])
def test_the_table_of_demo_and_segment_says_all_of_an_answer(
    use: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DEMO mark, side, probability with its threshold, what was assumed; a finding that is new here is shown too."""
    monkeypatch.setenv("COLUMNS", "80")
    one = film_report.FilmAnswer(
        "/in/a.dcm", None, "done", None, "pneumothorax", 0.3412, 1234.5, 0.98, 1.2, (), None, 0.1125, "left", ("view-assumed",)
    )
    two = replace(
        one, file="/in/b.dcm", finding="indeterminate", side="image left", sentence="A person must look.", notes=("x",)
    )
    film_report.print_table([one, two], tmp_path, {"name": "m", "version": "1", "intended_use": use})
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("a.dcm"))
    assert all(text in row for text in ("pneumothorax", "34 % (threshold 11 %)", "left", "mm²", "0.98"))
    assert "indeterminate" in printed and "b.dcm: A person must look." in printed and "b.dcm: x" in printed
    assert "a.dcm: view-assumed: Nothing names the view" in printed
    assert ("DEMO - NOT FOR CLINICAL USE" in printed) is (use == "demo")
    assert use == "demo" or "AI result - not for primary diagnosis" in printed


# -- what is found ---------------------------------------------------------------------------------------------


def test_a_job_is_found_by_the_uid_of_its_film_and_of_a_result(films: AnsweredFilms) -> None:
    job = arrive(films)
    answer(films)
    for name in (job, job[:6], UID, MADE):
        assert json.loads(says(films, "show", name, "--json").output)["job"] == job
    again = arrive(films, number=1, syntax="1.2.840.10008.1.2")
    printed = says(films, "show", UID).output
    assert "2 jobs have this SOP Instance UID" in printed and job in printed and again in printed
    assert {one["job"] for one in json.loads(says(films, "show", UID, "--json").output)} == {job, again}
    which = says(films, "retry", UID)
    assert which.exit_code == 1 and job in which.output and again in which.output
    missing = says(films, "show", "1.2.99")
    assert missing.exit_code == 1 and "no film and no result here has the SOP Instance UID 1.2.99" in missing.output
    assert json.loads(says(films, "show", job, "--json").output)["threshold"] == 0.1125


# -- what is done ----------------------------------------------------------------------------------------------


def test_deliver_now_makes_what_waits_due_at_once(films: AnsweredFilms) -> None:
    """Of one destination or of all; never what was refused, and nobody is counted who got all."""
    uids = [films.add() for _ in range(4)]
    deliveries = [films.delivery(uid) for uid in uids]
    for one in deliveries[:2]:
        films.outbox.settle(one, DeliveryState.PENDING, status=None, reason="PACS cannot be reached", delay=600)
    films.outbox.settle(deliveries[2], DeliveryState.REFUSED, status=0x0124, reason="not allowed")
    films.outbox.settle(deliveries[3], DeliveryState.DELIVERED, status=0, reason="")
    assert not films.outbox.due(900), "all of it waits"
    assert "PACS: 2 waiting" in says(films, "deliver").output and not films.outbox.due(900), "looking changes nothing"
    hint = says(films, "retry", films.jobs[0]).output
    assert "Nothing to retry: no refused delivery whose objects are still here." in hint and "`deliver --now PACS`" in hint
    done = says(films, "deliver", "--now", "PACS")
    assert "PACS: 2 deliveries due now" in done.output and "1 delivery refused" in done.output and "`retry JOB`" in done.output
    assert [one.object.sop_instance_uid for one in films.outbox.due(900)["PACS"]] == uids[:2]
    assert films.delivery(uids[2]).state is DeliveryState.REFUSED
    films.ledger.set_mode("paused")
    assert "`resume` it first" in says(films, "deliver", "--now").output
    assert json.loads(says(films, "deliver", "--now", "--json").output) == {"PACS": 2}
    wrong = says(films, "deliver", "--now", "PAX")
    assert wrong.exit_code == 2 and "known: PACS" in wrong.output


def test_purge_asks_and_without_a_terminal_it_wants_yes(films: AnsweredFilms) -> None:
    job = arrive(films)
    answer(films)
    under_way = says(films, "purge", job, "--yes")
    assert under_way.exit_code == 1 and "1 delivery under way" in under_way.output
    [one] = films.outbox.of_job(job)
    films.outbox.settle(one, DeliveryState.REFUSED, status=0x0124, reason="not allowed")
    silent = says(films, "purge", job)
    assert silent.exit_code == 2 and "add --yes" in silent.output and films.ledger.job(job).arrival.path
    code, shown = in_terminal(films.config_file, "purge", job, answer="n\n")
    assert code == 1 and "PACS did not get all of the results." in shown and "Nothing was deleted" in shown
    assert films.ledger.job(job).arrival.path
    code, shown = in_terminal(films.config_file, "purge", UID, answer="y\n")
    assert code == 0 and f"Delete the film and the results (seg) of job {job} for good?" in shown.replace("\n", "")
    assert "2 files deleted" in shown and not films.ledger.job(job).arrival.path
    assert "has no files here any more" in says(films, "purge", job).output


def test_rerun_promises_only_what_it_can_do(films: AnsweredFilms) -> None:
    job = arrive(films)
    answer(films)
    [one] = films.outbox.of_job(job)
    films.outbox.settle(one, DeliveryState.DELIVERED, status=0, reason="")
    assert says(films, "purge", job, "--yes").exit_code == 0
    gone = says(films, "rerun", job)
    assert gone.exit_code == 1 and "its film is not on this disk any more; send the film again" in gone.output
    assert "Nothing to retry" in says(films, "retry", job).output
    assert arrive(films) == job, "the film came again: it is the same job, and its film is here"
    again = says(films, "rerun", job)
    assert again.exit_code == 0 and "generation 2" in again.output
    assert "results (seg) were removed from this disk and cannot be sent again" in again.output
    answer(films)
    assert [one.state for one in films.outbox.of_job(job)] == [DeliveryState.DELIVERED], "as it was said"
    (films.config.spool_directory / films.ledger.job(job).arrival.path).unlink()
    lost = says(films, "rerun", job)
    assert lost.exit_code == 1 and "missing from the spool" in lost.output
    assert films.ledger.job(job).state is State.SEGMENTED, "and it is left as it was"


# -- the programs of others -------------------------------------------------------------------------------------


def test_dcmtks_programs_are_not_hidden_by_pynetdicoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the script of `make` the shell finds dcmtk's; the tests find them before, too."""
    venv, debian = tmp_path / "venv", tmp_path / "debian"
    for folder, text in ((venv, "#!python\nfrom pynetdicom.__main__ import main\n"), (debian, "#!/bin/sh\n# dcmtk\n")):
        folder.mkdir()
        for name in ("storescu", "echoscu", "other"):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{venv}:{debian}")
    monkeypatch.setattr(sys, "executable", str(venv / "python"))
    assert program("storescu") == str(debian / "storescu") and program("other") == str(venv / "other")
    assert shutil.which("echoscu") == str(venv / "echoscu")
    for folder in (venv, debian):
        subprocess.run(
            ["/bin/sh", str(ROOT / "deploy" / "keep-dcmtk.sh"), str(folder)], check=True, env={"PATH": "/usr/bin:/bin"}
        )
    assert shutil.which("echoscu") == str(debian / "echoscu") and (venv / "other").exists()


def test_every_install_of_make_and_the_page_keeps_dcmtk() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = [part for part in makefile.split("$(PIP) --editable")[1:]]
    assert len(installs) == 4 and all(part.split("\n")[1].strip() == "@$(KEEP_DCMTK)" for part in installs)
    page = (ROOT / "docs" / "use" / "install.md").read_text()
    assert page.count("sh deploy/keep-dcmtk.sh .venv/bin") == 2, "after the installation and after an update"
