"""The whole workshop by its own command line: films -> data set -> runs -> thresholds -> artifact -> figures -> served."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import torch
from click.testing import CliRunner
from pydicom.dataset import Dataset
from small_training import tiny_data, tiny_recipe

from dicom_node.cli import segment
from dicom_node.runtime.config import Config
from segmenter.engine import Segmenter
from segmenter.model.artifact import load_artifact
from segmenter.model.mask import decide
from segmenter.model.network import build_network
from segmenter.model.placement import Placement
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.phantom.values import Phantom
from segmenter.settings import Settings
from segmenter.values import Prediction, Spacing
from train.cli import main
from train.data.cases import DataError, as_secondary_capture
from train.data.dataset import FilmRow, PreparedSet
from train.evaluate import calibrate, evaluate, exam
from train.evaluate.sources import LabelledFilm
from train.fit import checkpoint, encoder
from train.fit.fit import RunError
from train.fit.predictions import LEVELS, Predictions, averaged_predictions, concatenated

A_FEW_FILMS = (4, 21, 39)  # of the exam: small ones, CR, DX and SC, both photometric interpretations, 12 to 16 bits


def called(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, result.output[-2000:] + repr(result.exception)
    return result.stdout if code == 0 else result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw, data, two runs, calibration and model: an ensemble of two folds."""
    folder = tmp_path_factory.mktemp("chain")
    called("phantoms", "--out", folder / "raw", "--count", 12, "--longer-px", 352, "--first-seed", 40_000, "--workers", 1)
    called("prepare", folder / "raw", "--out", folder / "data", "--sizes", "96,64", "--folds", 2, "--workers", 1)
    recipe = tiny_recipe(folder, **{"epochs = 2": "epochs = 1", "steps = 3": "steps = 2"})
    for fold in (0, 1):
        called(
            "fit",
            "--recipe",
            recipe,
            "--data",
            folder / "data",
            "--run",
            folder / f"run-{fold}",
            "--fold",
            fold,
            "--device",
            "cpu",
        )
    runs = ["--data", folder / "data", "--run", folder / "run-0", "--run", folder / "run-1"]
    called("calibrate", *runs, "--out", folder / "calibration", "--device", "cpu")
    called(
        "export",
        *runs,
        "--calibration",
        folder / "calibration",
        "--out",
        folder / "model",
        "--name",
        "tiny",
        "--version",
        "9.9.9",
    )
    return folder


def test_an_ensemble_says_what_it_is(made: Path) -> None:
    artifact = load_artifact(made / "model")
    m, data = artifact.manifest, PreparedSet(made / "data")
    assert (m.name, m.version, m.intended_use, m.folds, len(m.weights)) == ("tiny", "9.9.9", "demo", (0, 1), 2)
    assert m.operating_point == "clinical" and set(m.operating_points) == {"clinical", "leaderboard", "published"}
    assert m.operating_points["published"] == calibrate.PUBLISHED
    assert m.data["folds_sha256"] == data.about["folds_sha256"] and m.data["index_sha256"] == data.digest
    assert [run["fold"] for run in m.data["runs"]] == [0, 1] and m.flips and m.input.size == 96
    card = (made / "model" / "MODEL_CARD.md").read_text()
    for words in (
        "NOT FOR CLINICAL USE",
        "2 networks, one for each of the folds",
        data.digest[:16],
        "clinical (default)",
        "never served",
    ):
        assert words in card
    assert (made / "calibration" / "curve.png").stat().st_size > 5000


def test_it_is_served_as_any_model(made: Path, tmp_path: Path) -> None:
    film = next((made / "raw").rglob("*.dcm"))
    [finding] = Segmenter(load_artifact(made / "model"), Settings()).segment([pydicom.dcmread(film)])
    assert finding.outcome == "done" and finding.decision is not None and 0 <= finding.decision.image_probability <= 1
    assert segment.segment_files(Config(), [film], tmp_path, True, made / "model") == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--run", "run-1", "--run", "run-0"], "is of other runs"),
        (["--run", "run-0", "--run", "run-0"], "held out the same fold"),
        (["--run", "run-0", "--run", "run-1", "--no-flips"], "was made with flips"),
        (["--run", "data", "--run", "run-1"], "is no run,"),
    ],
)
def test_what_does_not_belong_together_is_refused(made: Path, change: list[str], says: str, tmp_path: Path) -> None:
    given = [made / word if (made / word).exists() else word for word in change]
    output = called(
        "export", "--data", made / "data", *given, "--calibration", made / "calibration", "--out", tmp_path / "x", code=2
    )
    assert says in " ".join(output.split())
    assert not (tmp_path / "x").exists()


def test_films_that_a_model_has_learned_are_refused(made: Path, tmp_path: Path) -> None:
    """Result: neither a member of an ensemble nor a single run is measured on what it was trained on, nor exported with the
    thresholds of other weights."""
    fold = ("--data", "siim-fold", "--path", made / "data", "--fold")
    assert "has learned films of fold 1" in " ".join(called("evaluate", "--artifact", made / "model", *fold, 1, code=2).split())
    alone = single(made, tmp_path)
    assert "has learned films of fold 0" in " ".join(called("evaluate", "--artifact", alone, *fold, 0, code=2).split())
    other = tmp_path / "calibration" / calibrate.CALIBRATION_FILE
    other.write_text(other.read_text().replace('"weights_sha256": [\n    "', '"weights_sha256": [\n    "0'))
    run = ("--data", made / "data", "--run", made / "run-1", "--calibration", tmp_path / "calibration")
    assert "is of other weights" in " ".join(called("export", *run, "--out", tmp_path / "x", code=2).split())


def single(made: Path, folder: Path) -> Path:
    """The run of fold 1 alone, as an artifact."""
    run = ("--data", made / "data", "--run", made / "run-1")
    called("calibrate", *run, "--out", folder / "calibration", "--device", "cpu")
    called("export", *run, "--calibration", folder / "calibration", "--out", folder / "model")
    return folder / "model"


def test_evaluation_of_every_kind_of_data(made: Path, tmp_path: Path) -> None:
    """siim-fold, PTX-498 and a folder, each recorded in manifest and card; pictures are there."""
    model = single(made, tmp_path)
    given = ("--data", "siim-fold", "--path", made / "data", "--fold", 1, "--out", tmp_path / "out")
    fold = json.loads(called("evaluate", "--artifact", model, *given, "--record", "--json"))
    assert "chose among the weights" in fold["note"] and fold["note"] in (model / "MODEL_CARD.md").read_text()
    held_out = PreparedSet(made / "data").fold(1)[1]
    assert fold["films"] == len(held_out) and fold["positives"] == sum(row.positive for row in held_out)
    assert fold["intervals"].keys() >= {"auroc", "pooled_dice"} and "published" not in fold
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "report.json", "report.md", "reliability.png", "dice_against_area.png", "roc.png", "worst.png",
    }  # fmt: skip

    ptx(made, tmp_path / "ptx")
    given = ("--data", "ptx498", "--path", tmp_path / "ptx")
    site = json.loads(called("evaluate", "--artifact", model, *given, "--record", "--json"))
    assert site["films"] == 3 and site["negatives"] == 0 and set(site["by_site"]) == {"SiteA", "SiteC"}
    assert site["published"]["films"] == 3 and list(site["unusable"]) == ["SiteC-9"]
    card = (model / "MODEL_CARD.md").read_text()
    assert "| 0.8241 |" in card and "## Evaluation: fold 1 of phantoms" in card and "SiteA" in card
    assert set(load_artifact(model).manifest.metrics["evaluations"]) == {"fold-1", "ptx498"}

    for part in ("films", "masks"):
        (tmp_path / "own" / part).mkdir(parents=True)
    image = next((tmp_path / "ptx" / "SiteA").glob("*.1.img.png"))
    (tmp_path / "own" / "films" / "a.png").write_bytes(image.read_bytes())
    (tmp_path / "own" / "films" / "b.png").write_bytes(image.read_bytes())
    (tmp_path / "own" / "masks" / "a.png").write_bytes(Path(str(image).replace(".1.img", ".2.mask")).read_bytes())
    text = called("evaluate", "--artifact", model, "--data", "folder", "--path", tmp_path / "own", "--published")
    assert "1 films of 1 patients" in text and "Unusable: 1" in text and "do not stand beside these" in text
    called("evaluate", "--artifact", model, "--data", "ptx498", "--path", tmp_path / "own", code=2)
    called(
        "evaluate",
        "--artifact",
        model,
        "--operating-point",
        "published",
        "--data",
        "folder",
        "--path",
        tmp_path / "own",
        code=2,
    )


def ptx(made: Path, out: Path) -> None:
    """Three positive phantoms in the layout of PTX-498, and one without its mask."""
    rows = [row for row in PreparedSet(made / "data").rows if row.positive][:3]
    source = PreparedSet(made / "data")
    for number, (row, site) in enumerate(zip(rows, ("SiteA", "SiteA", "SiteC"), strict=True), start=1):
        (out / site).mkdir(parents=True, exist_ok=True)
        image, mask = (part[0] for part in source.read([row], 96))
        big = [cv2.resize(part, (352, 300), interpolation=cv2.INTER_NEAREST) for part in (image, mask * 255)]
        cv2.imwrite(str(out / site / f"{number}.1.img.png"), big[0])
        cv2.imwrite(str(out / site / f"{number}.2.mask.png"), big[1])
    cv2.imwrite(str(out / "SiteC" / "9.1.img.png"), big[0])


def test_a_run_can_start_from_an_artifact_and_end_by_the_clock(made: Path, tmp_path: Path) -> None:
    given = ("--recipe", made / "tiny.toml", "--data", made / "data", "--device", "cpu")
    called("fit", *given, "--run", tmp_path / "run", "--start", made / "model", "--minutes", 1e-6)
    notes = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert notes["start"].startswith("tiny 9.9.9, weights ") and str(made) not in json.dumps(notes["start"])
    last = checkpoint.load_progress(checkpoint.steps(tmp_path / "run")[-1])
    assert (last.stage, last.step) == (2, 2), "each stage ended with its first step, and the run is whole"
    network = build_network(load_artifact(made / "model").manifest.network)
    encoder.load_start(network, made / "model")
    ours, theirs = network.state_dict(), load_artifact(made / "model").state_dict(0)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_thresholds_may_come_from_films_of_their_own(made: Path, tmp_path: Path) -> None:
    """All runs answer them and their mean is judged; films that were learned are refused."""
    runs = ["--data", made / "data", "--run", made / "run-0", "--run", made / "run-1", "--out", tmp_path / "calibration"]
    assert "that no run has learned" in " ".join(called("calibrate", *runs, "--on", made / "data", code=2).split())
    other = tiny_data(tmp_path, count=6, first_seed=45_000)
    found = json.loads(called("calibrate", *runs, "--on", other.folder, "--device", "cpu", "--json"))
    assert found["films"] == 6 and other.digest[:16] in found["on"]
    none = np.zeros((6, 4, 4), bool)
    parts = [Predictions(other.rows, np.full((6, 4, 4), v, np.uint8), np.full((1, 6), v / 10), none) for v in (10, 30)]
    mean = averaged_predictions(parts)
    assert (mean.probability == 20).all() and len(concatenated(parts).rows) == 12
    assert np.allclose(mean.image_probability(2.0), (1 / (1 + np.exp(-0.5)) + 1 / (1 + np.exp(-1.5))) / 2)
    patients = [replace(row, name=f"other {row.name}") for row in PreparedSet(made / "data").rows]
    other.rows = tuple(patients)
    with pytest.raises(RunError, match="patients of"):
        calibrate._refuse_the_seen(other, PreparedSet(made / "data"))


def test_an_aim_out_of_reach_is_said_and_balanced() -> None:
    """Half of the lesions leave no trace: no threshold finds .95 of them; calling everything positive is no answer."""
    answers = said()
    blank = answers.probability.copy()
    blank[::4] = 0
    found = calibrate.choose_operating_points(Predictions(answers.rows, blank, answers.image_logits, answers.truth), 64)
    clinical = found["figures"]["clinical"]
    assert not found["sensitivity_met"] and clinical["sensitivity"] < 0.6 and clinical["specificity"] > 0.6


# -- figures -----------------------------------------------------------------------------------------------------


class Parrot:
    """A model that answers what it sees."""

    size = 64

    def predict(self, images: np.ndarray) -> list[Prediction]:
        return [Prediction(image[0], 1.0) for image in images]


def test_published_figures_squash_the_film() -> None:
    """A film twice as high as wide, of which the truth is a square: squashed, it is a bar, and counted as such."""
    truth = np.zeros((400, 200), bool)
    truth[100:200, 50:150] = True
    counts = evaluate.squashed_counts(Parrot(), truth.astype(np.float32), truth)  # type: ignore[arg-type]
    assert counts.truth == 128 * 256 and counts.both == counts.truth, "a quarter of the height, half of the width, of 512"
    assert counts.answer == pytest.approx(counts.truth, rel=0.12), "threshold .05 adds a rim of interpolation"
    nothing = evaluate.squashed_counts(Parrot(), np.full((400, 200), 0.04, np.float32), truth)  # type: ignore[arg-type]
    assert nothing.answer == 0


def test_an_answer_is_scored_on_its_own_matrix() -> None:
    truth, mask = np.zeros((600, 400), bool), np.zeros((600, 400), bool)
    truth[:100, :100], mask[:100, 50:150] = True, True
    given = LabelledFilm("a", "p", "s", as_secondary_capture(np.zeros((600, 400), np.uint8), "a", "p"), truth)
    scored = evaluate.score_film(given, mask, 0.5)
    assert scored.native.dice == 0.5 and scored.grid.dice == pytest.approx(0.5, abs=0.02)
    assert scored.area_fraction == pytest.approx(10_000 / 240_000)


def said(n: int = 60, size: int = 64) -> Predictions:
    """Films of which half are positive; probabilities that are right more often than not, and a few specks."""
    rng = np.random.default_rng(4)
    truth, p = np.zeros((n, size, size), bool), np.zeros((n, size, size), np.float32)
    rows, logits = [], []
    for i in range(n):
        if i % 2 == 0:
            side, y, x = int(rng.integers(3, 14)), *rng.integers(0, size - 14, 2)
            truth[i, y : y + side, x : x + side] = True
            p[i] = cv2.GaussianBlur(truth[i].astype(np.float32), (0, 0), 1.5)
        for _ in range(int(rng.integers(0, 3))):
            y, x = rng.integers(0, size - 2, 2)
            p[i, y : y + 2, x : x + 2] = rng.uniform(0.2, 0.9)
        rows.append(FilmRow(i, f"f{i}", f"p{i}", "", 0, "", float(truth[i].mean()), 320, 256, 0.5, 0.5, "", ""))
        logits.append(rng.normal(2.0 if i % 2 == 0 else -2.0, 1.6))
    return Predictions(tuple(rows), np.round(p * LEVELS).astype(np.uint8), np.array(logits)[None], truth)


def test_operating_points_keep_their_promises() -> None:
    answers = said()
    found = calibrate.choose_operating_points(answers, 128)
    figures, points = found["figures"], found["operating_points"]
    assert found["sensitivity_met"] and figures["clinical"]["sensitivity"] >= calibrate.SENSITIVITY
    assert figures["leaderboard"]["kaggle_dice"] >= max(
        figures["clinical"]["kaggle_dice"], max(r["kaggle_dice"] for r in found["curve"])
    )
    areas = np.concatenate([calibrate._regions(t)[0] for t in answers.truth[answers.positive]]) * 0.25 * 25  # mm2 of a grid px
    assert 0 < points["clinical"]["min_area_mm2"] <= np.percentile(areas, 5) + 0.01
    px = np.concatenate([calibrate._regions(t)[0] for t in answers.truth[answers.positive]]) * 4  # of a grid of 128
    assert 0 < points["clinical"]["min_area_px"] <= np.percentile(px, 5) + 0.01
    assert points["published"] == {"image_threshold": 0.0, "mask_threshold": 0.05, "min_area_mm2": 0.0, "min_area_px": 0.0}
    sensitivities = [row["sensitivity"] for row in found["curve"]]
    assert sensitivities == sorted(sensitivities, reverse=True) and sensitivities[0] > 0.95 and sensitivities[-1] == 0


def test_gates_that_do_the_same_settle_in_the_middle() -> None:
    """Masks without a fault: all gates below the least sure positive film do the same; the lowest, 0, would filter nothing."""
    some = said()
    sick = some.positive
    logits = np.where(sick, 1.2, -1.2) + np.linspace(-2, 2, len(sick))  # they overlap: two fifths
    answers = Predictions(some.rows, (some.truth * LEVELS).astype(np.uint8), logits[None], some.truth)
    found = calibrate.choose_operating_points(answers, 64)
    probability = answers.image_probability(found["temperature"])
    for name in ("clinical", "leaderboard"):
        gate = found["operating_points"][name]["image_threshold"]
        assert 0.3 <= (probability[~sick] < gate).mean() <= 0.5 and gate < probability[sick].min(), name


def test_what_is_tuned_is_what_is_served() -> None:
    """The answers that calibration counts are those of `segmenter.model.mask` on a film of the grid's own size."""
    answers = said(20)
    rows = tuple(FilmRow(**{**row.__dict__, "height": 64, "width": 64}) for row in answers.rows)
    answers = Predictions(rows, answers.probability, answers.image_logits, answers.truth)
    floor = calibrate.Floor(5.0, 2.5, 0.0)
    cell, loose = calibrate.mask_counts(answers, 0.3, [floor, calibrate.Floor(0.0, 0.0, 0.0)])
    placement = Placement.fit((64, 64), 64)
    point = calibrate.OperatingPoint(0.0, 0.3, floor.mm2, 0.0)
    for i, p in enumerate(answers.probability):
        decision = decide(Prediction((p / np.float32(LEVELS)), 1.0), placement, point, Spacing(0.5, 0.5, "PixelSpacing"), 1.0)
        assert decision.mask.sum() == cell.answer[i] and (decision.mask & answers.truth[i]).sum() == cell.both[i], i
    assert (cell.answer > 0).any() and loose.answer.sum() > cell.answer.sum()


def test_temperature_cools_a_model_that_is_too_sure() -> None:
    def of(logits: np.ndarray, truth: np.ndarray) -> float:
        rows = tuple(FilmRow(i, f"f{i}", "p", "", 0, "", float(t), 64, 64, 0.5, 0.5, "", "") for i, t in enumerate(truth))
        return calibrate.fit_temperature(Predictions(rows, np.zeros(0, np.uint8), np.atleast_2d(logits), np.zeros(0, bool)))

    assert of(np.array([4.0, -4.0, 4.0, -4.0]), np.array([True, False, False, False])) > 2
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 20_000)
    called = rng.random(20_000) < 1 / (1 + np.exp(-honest))
    assert of(3 * honest, called) == pytest.approx(3, rel=0.1)
    # Two witnesses who differ: each is divided, and then they are averaged, as they are served.
    pair = honest + rng.normal(0, 1, (2, 20_000))
    cooled = (1 / (1 + np.exp(-pair / 1.0))).mean(0)
    assert of(2 * pair, rng.random(20_000) < cooled) == pytest.approx(2, rel=0.1)


# -- the exam ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", A_FEW_FILMS)  # `evaluate` checks every film that it scores
def test_the_exam_is_the_one_that_was_frozen(index: int) -> None:
    phantom, dataset = exam.exam_film(index)
    assert phantom.pneumothorax == (index % 20 < 9) and dataset.Rows != dataset.Columns
    assert phantom.truth.shape == (dataset.Rows, dataset.Columns)


def test_every_film_of_the_exam_is_frozen_and_no_two_are_one() -> None:
    pixels, truths = zip(*exam.frozen_digests(), strict=True)
    assert len(set(pixels)) == exam.EXAM["films"] == 200
    without = sum(index % 20 >= 9 for index in range(200))
    assert len(set(truths)) >= 200 - without  # empty masks of one size are one


@pytest.mark.parametrize("changed", ["pixels", "truth", "window", "nothing"])
def test_a_film_of_the_exam_that_changed_is_refused(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The films themselves are too large for a test that draws them again and again."""
    small, stored = small_exam_film()
    monkeypatch.setattr(exam, "frozen_digests", lambda: (exam.film_sha256(small, stored),))
    phantom, dataset = small_exam_film()
    if changed == "pixels":
        dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
    elif changed == "truth":
        phantom.truth[0, 0] ^= True
    elif changed == "window":
        dataset.WindowCenter = 1
    monkeypatch.setattr(exam, "draw_exam_film", lambda index: (phantom, dataset))
    if changed == "nothing":
        assert exam.exam_film(0) == (phantom, dataset)
        return
    with pytest.raises(DataError, match=f"film 0 of the exam .* its {'truth' if changed == 'truth' else 'pixels'} differ"):
        exam.exam_film(0)


def small_exam_film() -> tuple[Phantom, Dataset]:
    phantom = draw_phantom(3, shape=(96, 80), pneumothorax=True)
    return phantom, phantom_dataset(phantom, kind="DX", bits=12)


def test_data_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "neither SIIM-ACR as delivered" in called("prepare", tmp_path / "empty", "--out", tmp_path / "x", code=2)
    assert "run `python -m train prepare" in " ".join(
        called("fit", "--recipe", "quick", "--data", tmp_path / "empty", "--run", tmp_path / "y", code=2).split()
    )
    for command in ("phantoms", "prepare", "fit", "calibrate", "evaluate", "export", "pairs"):
        assert "--help" in called(command, "--help")
