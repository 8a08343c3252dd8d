"""The workshop: figures against sums done by hand, and a training that leaves a loadable artifact."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from segmenter.artifact import load_artifact
from train import films
from train.augment import augment, plain
from train.calibrate import image_thresholds, temperature
from train.card import card
from train.checkpoint import load_progress
from train.config import Films, Recipe, RecipeError, Stage, load_recipe
from train.exam import exam_film, is_frozen
from train.export import export, record_exam
from train.fit import fit
from train.losses import batch_dice_loss
from train.metrics import Counts, Scored, auroc, average_precision, expected_calibration_error, measure


def scored(truth: int, answer: int, both: int, probability: float) -> Scored:
    counts = Counts(truth, answer, both)
    return Scored("", counts, counts, probability, truth / 1000)


def test_figures_by_hand():
    report = measure(
        [
            scored(10, 10, 10, 0.9),  # found, Dice 1
            scored(20, 10, 5, 0.8),  # found, Dice 1/3
            scored(30, 0, 0, 0.2),  # missed, Dice 0
            scored(0, 0, 0, 0.1),  # rightly empty
            scored(0, 5, 0, 0.7),  # false alarm
        ]
    )
    assert report["positives"] == 3 and report["negatives"] == 2
    assert report["mean_positive_dice"] == pytest.approx(4 / 9, abs=1e-4)
    assert report["tp_dice"] == pytest.approx(2 / 3, abs=1e-4)
    assert report["kaggle_dice"] == pytest.approx((1 + 1 / 3 + 0 + 1 + 0) / 5, abs=1e-4)
    assert report["pooled_dice"] == pytest.approx(2 * 15 / (60 + 25), abs=1e-4)
    assert report["pooled_iou"] == pytest.approx(15 / (60 + 25 - 15), abs=1e-4)
    assert report["sensitivity"] == pytest.approx(2 / 3, abs=1e-4) and report["specificity"] == 0.5
    assert report["auroc"] == pytest.approx(5 / 6, abs=1e-4)
    assert report["by_area"]["large"]["sensitivity"] == 0 and report["by_area"]["small"]["tp_dice"] == 1


def test_ranking_figures_by_hand():
    truth, score = np.array([True, False, True, False]), np.array([0.9, 0.9, 0.4, 0.1])
    assert auroc(truth, score) == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    assert average_precision(truth, score) == pytest.approx(0.5 * 0.5 + 0.5 * 2 / 3)
    assert expected_calibration_error(truth, score) == pytest.approx((0.8 + 0.6 + 0.1) / 4)
    assert auroc(np.array([True]), np.array([0.5])) is None


def test_batch_dice_loss_by_hand():
    truth = torch.zeros(2, 1, 2, 2)
    truth[0] = 1
    sure = torch.where(truth > 0, 50.0, -50.0)
    assert batch_dice_loss(sure, truth) == pytest.approx(0, abs=1e-6)
    assert batch_dice_loss(-sure, truth) == pytest.approx(1 - 1 / 9, abs=1e-6)


def test_thresholds_lie_between_the_films():
    truth = np.array([False, False, False, True, True, True])
    probability = np.array([0.1, 0.2, 0.5, 0.4, 0.8, 0.9])
    chosen = image_thresholds(probability, truth)
    assert 0.4 < chosen["balanced"] < 0.8 and chosen["sensitive"] < 0.4
    assert temperature(np.array([4.0, -4.0, 4.0, -4.0]), np.array([True, False, False, False])) > 2, "too sure"


def test_augmentation_keeps_image_and_truth_together():
    film = np.zeros((2, 64, 64), np.uint8)
    film[:, 10:30, 20:26] = 255
    how = dataclasses.replace(load_recipe("quick").augmentation, gamma=0, window=0, noise=0, blur=0.2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        image, truth = augment(film, 64, how, rng)
        assert Counts.of(image > 0.5, truth > 0.5).dice > 0.9 and truth.sum() > 60
    assert plain(film, 32)[0].shape == (32, 32)


def test_recipes_name_their_mistakes(tmp_path: Path):
    assert load_recipe("phantom").stages[-1].size == 384
    text = Path(films.__file__).with_name("recipes").joinpath("quick.toml").read_text()
    (tmp_path / "bad.toml").write_text(text.replace("clip = 1.0", "clipp = 1.0"))
    with pytest.raises(RecipeError, match=r"\[optimiser\]: unknown key 'clipp'"):
        load_recipe(str(tmp_path / "bad.toml"))


def test_the_exam_is_the_one_that_was_frozen():
    assert is_frozen(), "phantoms or EXAM changed: the figures in the model card are of another exam"


@pytest.mark.parametrize("index", [0, 19])
def test_exam_films_are_reproducible(index: int, monkeypatch):
    monkeypatch.setitem(exam_film.__globals__["EXAM"], "longer_side_px", [200, 300])
    (one, a), (_, b) = exam_film(index), exam_film(index)
    assert one.pneumothorax == (index == 0) and a.PixelData == b.PixelData and a.Rows != a.Columns


@pytest.fixture
def tiny(monkeypatch) -> Recipe:
    monkeypatch.setattr(films, "BLOCK", 4)
    return dataclasses.replace(
        load_recipe("quick"),
        films=Films(64, 10_000, 4, 900_000, 4),
        stages=(Stage(size=64, batch=2, steps=2, minutes=5), Stage(size=64, batch=2, steps=1, minutes=5)),
    )


def test_fit_resumes_and_exports_an_artifact(tiny: Recipe, tmp_path: Path):
    run, cache = tmp_path / "run", tmp_path / "cache"
    fit(dataclasses.replace(tiny, stages=tiny.stages[:1]), cache, run)
    assert load_progress(run).step == 2
    fit(tiny, cache, run)
    progress = load_progress(run)
    assert (progress.step, progress.stage, progress.stage_step) == (3, 1, 1), "went on where it had stopped"

    artifact = export(tiny, cache, run, tmp_path / "model", size=64, films=4)
    assert artifact.manifest.intended_use == "demo" and artifact.manifest.input.size == 64
    mask, image = artifact.networks()[0](torch.zeros(1, 1, 64, 64))
    assert mask.shape == (1, 1, 64, 64) and image.shape == (1, 1)

    report = {
        **measure(
            [scored(10, 10, 10, 0.9), scored(20, 0, 0, 0.4), scored(30, 30, 30, 1.0), scored(0, 0, 0, 0.1)]
        ),
        "films": 4, "frozen": True, "unanswered": "none", "command": "by hand",
        "baseline": {"mean_positive_dice": 0.1, "thresholds": 6},
    }  # fmt: skip
    again = record_exam(tmp_path / "model", report)
    assert again.sha256 == artifact.sha256 == load_artifact(tmp_path / "model").sha256, "the weights stayed as they were"
    text = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "NOT FOR CLINICAL USE" in text and "0.6667" in text and "| >= 0.75 |" in text
    assert text == card(
        {
            **again.manifest.__dict__,
            "input": {"size": 64},
            "operating_points": {name: point.__dict__ for name, point in again.manifest.operating_points.items()},
        }
    ), "the card tells the manifest"
