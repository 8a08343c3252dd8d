"""From raw files to a prepared data set: masks in the right place, patients apart, nothing silently dropped."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from receiver_node import eventually

from segmenter.film.decode import decode
from segmenter.model.placement import Placement
from segmenter.phantom.draw import draw_phantom
from train.cli import main
from train.data import folds, phantoms, prepare, rle, siim
from train.data.cases import DataError
from train.data.dataset import PreparedSet
from train.data.workers import run_in_processes

COUNT, LONGER = 10, 352


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten phantoms as SIIM-ACR delivers films; as drawn, not harder, so that the truth can be drawn again."""
    folder = tmp_path_factory.mktemp("data") / "raw"
    assert phantoms.write_phantoms(phantoms.PhantomPlan(10_000, COUNT, LONGER, 0.0), folder, workers=1) == COUNT
    return folder


@pytest.fixture
def copy(raw: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(raw, tmp_path / "raw"))


def prepared(source: Path, out: Path, **values: object) -> PreparedSet:
    prepare.prepare(prepare.PreparePlan(source, out, **{"sizes": (128, 64), "folds": 2, **values}))  # type: ignore[arg-type]
    return PreparedSet(out)


def films(source: Path) -> list[Path]:
    return sorted(source.rglob("*.dcm"))


# -- run lengths -----------------------------------------------------------------------------------------------


def test_runs_go_down_the_columns() -> None:
    """3 rows, 2 columns. Down the first column: 0 1 1, down the second: 0 1 0."""
    assert rle.decode("1 2 1 1", (3, 2)).astype(int).tolist() == [[0, 0], [1, 1], [1, 0]]
    assert not rle.decode("-1", (3, 2)).any()
    assert rle.union(("0 1", "5 1"), (3, 2)).astype(int).tolist() == [[1, 0], [0, 0], [0, 1]], "rows of one film are joined"


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 13))))
def test_a_mask_comes_back_from_its_runs(mask: np.ndarray) -> None:
    assert np.array_equal(rle.decode(rle.encode(mask), mask.shape), mask)


@pytest.mark.parametrize("text", ["1 2 3", "1 x", "-3 2", "3 4", "1e3 1", "99999999999999999999999 1"])
def test_what_is_no_mask_of_this_film_is_refused(text: str) -> None:
    with pytest.raises(rle.RleError):
        rle.decode(text, (3, 2))


def test_every_mask_of_siim_acr_comes_back() -> None:
    """All 12,047 ids and the facts known about them. Where SEGMENTER_SIIM_DATA names a folder with siim-train-rle.csv and
    siim-to-nih-id.csv, packed (.gz) or not."""
    folder = os.environ.get("SEGMENTER_SIIM_DATA")
    if not folder:
        pytest.skip("SEGMENTER_SIIM_DATA names no folder with the masks of SIIM-ACR")
    masks, patients = (min(Path(folder).glob(f"{name}.csv*")) for name in ("siim-train-rle", "siim-to-nih-id"))
    rows, patient = siim.read_rle(masks), siim.read_patients(patients)
    areas = {}
    for name, texts in rows.items():
        for text in texts:
            mask = rle.decode(text, (1024, 1024))
            assert np.array_equal(rle.decode(rle.encode(mask), (1024, 1024)), mask)
        areas[name] = float(rle.union(texts, (1024, 1024)).mean())
    assert len(areas) == 12_047 and sum(a > 0 for a in areas.values()) == 2_669
    positive = [a for a in areas.values() if a > 0]
    assert np.median(positive) == pytest.approx(0.0082, abs=1e-4) and max(positive) == pytest.approx(0.154, abs=1e-3)
    groups = [patient[name] for name in areas]
    kinds = folds.strata(list(areas.values()))
    fold_of = folds.assign_folds(groups, kinds, 5, 1)
    assert len(fold_of) == 6_171
    for fold in range(5):
        held = [kind for group, kind in zip(groups, kinds, strict=True) if fold_of[group] == fold]
        assert abs(held.count("empty") - 9_378 / 5) <= 2 and all(abs(held.count(k) - 2_669 / 15) <= 2 for k in folds.STRATA[1:])


# -- folds -----------------------------------------------------------------------------------------------------


def test_no_patient_in_two_folds_and_every_fold_has_its_share() -> None:
    rng = np.random.default_rng(0)
    groups = [f"p{int(g)}" for g in rng.geometric(0.02, 1500)]  # some patients have many films, as in life
    areas = np.where(rng.random(1500) < 0.25, rng.lognormal(-4.8, 1.1, 1500), 0)
    kinds = folds.strata(areas.tolist())
    fold_of = folds.assign_folds(groups, kinds, 5, seed=3)
    assert set(fold_of) == set(groups) and set(fold_of.values()) == set(range(5)), "one fold for each patient"
    whole = {k: kinds.count(k) for k in folds.STRATA}
    for fold in range(5):
        held = [kind for group, kind in zip(groups, kinds, strict=True) if fold_of[group] == fold]
        assert len(held) == pytest.approx(300, abs=15)
        assert all(held.count(k) == pytest.approx(whole[k] / 5, abs=0.12 * whole[k] / 5 + 3) for k in folds.STRATA)
    assert fold_of == folds.assign_folds(groups, kinds, 5, seed=3) and fold_of != folds.assign_folds(groups, kinds, 5, seed=4)
    assert folds.folds_sha256(fold_of) != folds.folds_sha256({**fold_of, groups[0]: (fold_of[groups[0]] + 1) % 5})


# -- prepare ---------------------------------------------------------------------------------------------------


def test_films_and_truths_lie_where_they_are_served(raw: Path, tmp_path: Path) -> None:
    data = prepared(raw, tmp_path / "out")
    assert len(data.rows) == COUNT and data.about["kind"] == "phantoms" and data.about["patients"] < COUNT
    seed_of = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID: p for p in films(raw)}
    shapes = set()
    for number, row in enumerate(data.rows):
        dataset = pydicom.dcmread(seed_of[row.name])
        seed = int(str(dataset.PatientName).rsplit(" ", 1)[1])
        shape = phantoms.film_shape(seed, LONGER)
        truth = draw_phantom(seed, shape=shape).truth
        shapes.add(shape)
        assert (row.height, row.width) == shape == dataset.pixel_array.shape
        assert row.area_fraction == pytest.approx(truth.mean(), abs=1e-9) and row.positive == truth.any()
        image, mask = (part[0] for part in data.read([row], 128))
        placement = Placement.fit(shape, 128)
        assert np.array_equal(mask > 0, placement.to_model(truth.astype(np.float32)) > 0.5), number
        assert np.abs(image / 255 - placement.to_model(decode(dataset).image)).max() < 1 / 255
        assert row.row_mm == pytest.approx(float(dataset.PixelSpacing[0]))
    assert any(h != w for h, w in shapes), "not only square films"
    by_patient: dict[str, set[int]] = {}
    for row in data.rows:
        by_patient.setdefault(row.patient, set()).add(row.fold)
    assert all(len(of) == 1 for of in by_patient.values()) and any(
        sum(r.patient == p for r in data.rows) == 2 for p in by_patient
    )
    data.verify(data.rows)


def test_a_killed_prepare_goes_on_and_ends_the_same(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepared(raw, tmp_path / "whole")
    real, calls = prepare._prepare_one, []

    def third_dies(job: tuple) -> dict:
        calls.append(job[3].name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(prepare, "_prepare_one", third_dies)
    with pytest.raises(KeyboardInterrupt):
        prepared(raw, tmp_path / "out")
    with pytest.raises(DataError, match="is no prepared data set"):
        PreparedSet(tmp_path / "out")
    with open(tmp_path / "out" / prepare.PROGRESS_FILE, "a") as file:
        file.write('{"name": "cut sho')  # what a kill in the middle of a line leaves
    again = prepared(raw, tmp_path / "out")
    assert len(calls) == 4 + COUNT - 3, "three were done"
    assert again.digest == whole.digest
    again.verify(again.rows)
    with pytest.raises(DataError, match="begun from other films, masks or sizes"):
        prepared(raw, tmp_path / "out", sizes=(64,))


def test_other_masks_are_another_data_set_and_a_mended_film_is_taken(copy: Path, tmp_path: Path) -> None:
    """Result: a corrected csv is never mixed with the masks of the one before; a film that could not be read is tried again."""
    broken = films(copy)[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-5000])
    assert len(prepared(copy, tmp_path / "out").rows) == COUNT - 1
    broken.write_bytes(whole)
    assert len(prepared(copy, tmp_path / "out").rows) == COUNT
    label = copy / "train-rle.csv"
    lines = label.read_text().splitlines()
    label.write_text("\n".join([lines[0], *(f"{line.split(',')[0]}, {rle.EMPTY}" for line in lines[1:])]) + "\n")
    with pytest.raises(DataError, match="begun from other films, masks or sizes"):
        prepared(copy, tmp_path / "out")


def test_a_worker_that_dies_is_an_error_and_no_silence() -> None:
    with pytest.raises(DataError, match="a worker process died"):
        list(run_in_processes(os._exit, [3, 3, 3], 2))


def test_workers_end_with_a_parent_that_is_killed() -> None:
    script = "import time; from train.data.workers import run_in_processes as run; list(run(time.sleep, [0, 0, 60, 60], 2))"
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        below = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        assert eventually(lambda: len(below.read_text().split()) == 3, seconds=120), "two workers and multiprocessing's tracker"
        children = [Path("/proc", pid) for pid in below.read_text().split()]
        parent.kill()
    assert eventually(lambda: not any(child.exists() for child in children), seconds=120)


def test_a_disk_that_cannot_hold_the_arrays_is_said_before(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(DataError, match="make room"):
        prepared(raw, tmp_path / "out")


def test_ids_that_are_no_patients_are_noticed(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIIM-ACR has another PatientID on every film; and a map that leaves a film out leaves it without a patient."""
    names = [path.stem for path in films(raw)]
    half = tmp_path / "half.csv.gz"
    with gzip.open(half, "wt") as file:
        file.write("Kaggle_ID,NIH_ID\n" + "".join(f"{name},0000000{i}_000.png\n" for i, name in enumerate(names[1:])))
    with pytest.raises(DataError, match=f"1 of {COUNT} films have no patient"):
        prepared(raw, tmp_path / "out", patients=half)
    monkeypatch.setattr(prepare, "REPEAT_PATIENTS_FROM", COUNT)
    real = prepare.find_films
    lonely = lambda *given: replace(real(*given), cases=tuple(replace(c, patient=c.name) for c in real(*given).cases))  # noqa: E731
    monkeypatch.setattr(prepare, "find_films", lonely)
    with pytest.raises(DataError, match="PatientID of its own"):
        prepared(raw, tmp_path / "out")


def test_more_folds_than_patients_are_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose fewer with --folds"):
        prepared(raw, tmp_path / "out", folds=COUNT + 1)


def test_changed_pixels_and_a_changed_index_are_noticed(raw: Path, tmp_path: Path) -> None:
    data = prepared(raw, tmp_path / "out")
    np.load(tmp_path / "out" / "images-64.npy", mmap_mode="r+")[data.rows[2].row, 5, 5] ^= 1
    with pytest.raises(DataError, match=r"the pixels of .* changed"):
        PreparedSet(tmp_path / "out").verify(data.rows)
    index = tmp_path / "out" / "index.csv"
    index.write_text(index.read_text().replace(",0,", ",1,", 1))
    with pytest.raises(DataError, match="is not the one that was prepared"):
        PreparedSet(tmp_path / "out")


def test_nothing_is_silently_dropped(copy: Path, tmp_path: Path) -> None:
    """One film of each kind that cannot be used; each is named with its reason."""
    unlabelled, garbage, cut, twin, tall, lateral = films(copy)[:6]
    label = copy / "train-rle.csv"
    lines = [line for line in label.read_text().splitlines() if not line.startswith(unlabelled.stem)]
    lines.append(f"no-such-film, {rle.EMPTY}")
    lines = [f"{tall.stem}, 0 99999999" if line.startswith(tall.stem) else line for line in lines]
    lines.append(f"twin-of-{twin.stem}, {rle.EMPTY}")
    label.write_text("\n".join(lines) + "\n")
    garbage.write_bytes(b"no DICOM at all")
    cut.write_bytes(cut.read_bytes()[:-5000])
    shutil.copy(twin, copy / f"twin-of-{twin.stem}.dcm")
    shutil.copy(films(copy)[7], copy / films(copy)[7].name)  # the same name in two places
    turned = pydicom.dcmread(lateral)
    turned.ViewPosition = "LL"
    turned.save_as(lateral)

    data = prepared(copy, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["unlabelled"] == [unlabelled.stem] and report["without film"] == ["no-such-film"]
    assert {line.split(":")[0] for line in report["unreadable"]} == {garbage.stem, cut.stem}
    assert [line.split(":")[0] for line in report["mismatched"]] == [tall.stem] and "99999999" in report["mismatched"][0]
    assert [line.split(":")[0] for line in report["not ours"]] == [lateral.stem] and "lateral" in report["not ours"][0]
    assert len(report["duplicate"]) == 2 and any("the same pixels as" in line for line in report["duplicate"])
    left = {row.name.removeprefix("twin-of-") for row in data.rows}
    assert len(data.rows) == COUNT - 5 and not left & {unlabelled.stem, garbage.stem, cut.stem, tall.stem, lateral.stem}
    assert data.about["left_out"] == {kind: len(names) for kind, names in report.items()}


def test_the_png_export_gives_the_same_arrays(raw: Path, tmp_path: Path) -> None:
    export, names, patients = tmp_path / "export", {}, {}
    for folder in ("png_images", "png_masks"):
        (export / folder).mkdir(parents=True)
    for number, path in enumerate(films(raw)):
        dataset = pydicom.dcmread(path)
        name = f"{number:02}_train_1_.png"
        mask = rle.union(siim.read_rle(raw / "train-rle.csv")[path.stem], dataset.pixel_array.shape)
        cv2.imwrite(str(export / "png_images" / name), dataset.pixel_array)
        cv2.imwrite(str(export / "png_masks" / name), mask.astype(np.uint8) * 255)
        names[name], patients[path.stem] = path.stem, f"{str(dataset.PatientID).removeprefix('PHANTOM-')}_000.png"
    with pytest.raises(DataError, match=r"10 of 10 films have no patient.*--patients.*--split image"):
        prepared(export, tmp_path / "out")
    assert len(prepared(export, tmp_path / "leaking", split="image").rows) == COUNT

    write(export / "stage_1_train_images.csv", ["new_filename", "ImageId", "has_pneumo"], [[n, i, 1] for n, i in names.items()])
    write(tmp_path / "nih.csv", ["Kaggle_ID", "NIH_ID"], patients.items())
    ours, theirs = prepared(export, tmp_path / "png", patients=tmp_path / "nih.csv"), prepared(raw, tmp_path / "dicom")
    by_id = {row.name: row for row in theirs.rows}
    assert {row.patient for row in ours.rows} == {row.patient.removeprefix("PHANTOM-") for row in theirs.rows}
    for row in ours.rows:
        twin = by_id[names[f"{row.name}.png"]]
        for mine, other in zip(ours.read([row], 128), theirs.read([twin], 128), strict=True):
            assert np.array_equal(mine, other)


def write(path: Path, header: list[str], rows: object) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])  # type: ignore[misc]


def test_both_csv_files_of_siim_acr_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ImageId, EncodedPixels\nx, 1 2\nx, 5 1\ny, -1\n")
    (tmp_path / "b.csv").write_text("ImageId,EncodedPixels\nx,1 2\nx,5 1\ny,-1\n")
    assert siim.read_rle(tmp_path / "a.csv") == siim.read_rle(tmp_path / "b.csv") == {"x": ("1 2", "5 1"), "y": ("-1",)}
    (tmp_path / "c.csv").write_text("id,mask\nx,1\n")
    with pytest.raises(DataError, match="header"):
        siim.read_rle(tmp_path / "c.csv")
    with pytest.raises(DataError, match=r"no \*\.dcm below it"):
        siim.find_films(tmp_path)


def test_seeds_of_the_exam_are_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are the exam's"):
        phantoms.write_phantoms(phantoms.PhantomPlan(5_999_999, 2, LONGER, 0.0), tmp_path, workers=1)


def test_a_pair_differs_in_the_pneumothorax_alone(tmp_path: Path) -> None:
    assert phantoms.write_phantoms(phantoms.PhantomPlan(10_002, 4, LONGER, 1.0, pairs=True), tmp_path / "raw", workers=1) == 4
    data = prepared(tmp_path / "raw", tmp_path / "data")
    pairs = [sorted((r for r in data.rows if r.patient == p), key=lambda r: r.positive) for p in {r.patient for r in data.rows}]
    assert [[r.positive for r in pair] for pair in pairs] == [[False, True]] * 2
    assert all(well.fold == sick.fold for well, sick in pairs)
    for pair in pairs:
        images, truths = data.read(pair, 128)
        near = cv2.dilate(truths[1], np.ones((25, 25), np.uint8)) > 0
        change = np.abs(images[1].astype(float) - images[0])
        assert change[truths[1] > 0].mean() > 5 * change[~near].mean(), "the air, and nothing far from it"


def test_a_pair_that_cannot_be_told_apart_is_one_film_and_counted_so(tmp_path: Path) -> None:
    plan = ["--first-seed", "440759", "--count", "2", "--longer-px", "352", "--harder", "0", "--pairs", "--workers", "1"]
    said = CliRunner().invoke(main, ["phantoms", "--out", str(tmp_path), *plan])
    assert said.exit_code == 0 and "1 films and train-rle.csv (1 fewer: a pair whose" in said.output
    assert len(list(tmp_path.rglob("*.dcm"))) == 1 and "-1" in (tmp_path / "train-rle.csv").read_text()


def test_pairs_of_even_sites_are_where_they_say(tmp_path: Path) -> None:
    plan = phantoms.PhantomPlan(20_000, 12, LONGER, 0.0, pairs=True, even_sites=True)
    sick = [seed for seed, sick in phantoms.planned_films(plan) if sick]
    assert [seed for seed, sick in phantoms.planned_films(plan) if not sick] == sick
    assert len(set(sick)) == 6 and min(sick) >= 20_000
    assert [draw_phantom(seed, shape=(96, 80), pneumothorax=True).sites[0] for seed in sick] == [
        "apical",
        "lateral",
        "basal",
    ] * 2
    with pytest.raises(ValueError, match="add --pairs"):
        phantoms.write_phantoms(phantoms.PhantomPlan(20_000, 12, LONGER, 0.0, even_sites=True), tmp_path, workers=1)


def test_harder_phantoms_keep_their_truth_in_place() -> None:
    """What is outlined is still darker than without it, after each step and after all; nothing added depends on the label."""
    from train.data.harder_phantoms import STEPS, make_harder

    pairs = [
        (draw_phantom(s, shape=(352, 300), pneumothorax=True), draw_phantom(s, shape=(352, 300), pneumothorax=False))
        for s in range(12)
    ]
    for sick, well in pairs:
        hard, plain = make_harder(sick), make_harder(well)
        assert hard.truth.any() and not plain.truth.any() and hard.image.shape == sick.image.shape
        assert hard.image.min() >= 0 and hard.image.max() <= 1
        moved = hard.truth & (hard.image < plain.image)
        assert moved.sum() > 0.7 * hard.truth.sum(), "the air of the pair is darker where the truth says so"
    sick, well = pairs[0]
    for _, step in STEPS:
        dark, light = (step(one.image, np.random.default_rng(1)) for one in (sick, well))
        assert np.abs(dark - sick.image).max() > 0.01, f"{step.__name__} does nothing"
        assert (dark < light)[sick.truth].mean() > 0.7, step.__name__
