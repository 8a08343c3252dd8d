"""Figures against sums done by hand, and intervals that know that films of one person are alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from train.report.intervals import intervals
from train.report.metrics import (
    Counts,
    ScoredFilm,
    Table,
    auroc,
    average_precision,
    calibration,
    expected_calibration_error,
    measure,
    scalars,
)


def scored(truth: int, answer: int, both: int, probability: float, *, patient: str = "", site: str = "") -> ScoredFilm:
    counts = Counts(truth, answer, both)
    return ScoredFilm("", patient, site, counts, counts, probability, truth / 1000)


FIVE = [
    scored(10, 10, 10, 0.9, site="A"),  # found, Dice 1
    scored(20, 10, 5, 0.8, site="A"),  # found, Dice 1/3
    scored(30, 0, 0, 0.2, site="B"),  # missed, Dice 0
    scored(0, 0, 0, 0.1, site="A"),  # rightly empty
    scored(0, 5, 0, 0.7, site="B"),  # false alarm
]


def test_figures_by_hand():
    report = measure(FIVE)
    assert report["positives"] == 3 and report["negatives"] == 2
    assert report["mean_positive_dice"] == pytest.approx(4 / 9, abs=1e-4)
    assert report["tp_dice"] == pytest.approx(2 / 3, abs=1e-4)
    assert report["kaggle_dice"] == pytest.approx((1 + 1 / 3 + 0 + 1 + 0) / 5, abs=1e-4)
    assert report["pooled_dice"] == pytest.approx(2 * 15 / (60 + 25), abs=1e-4)
    assert report["pooled_iou"] == pytest.approx(15 / (60 + 25 - 15), abs=1e-4)
    assert report["pooled_precision"] == pytest.approx(15 / 25, abs=1e-4)
    assert report["pooled_recall"] == pytest.approx(15 / 60, abs=1e-4)
    assert report["sensitivity"] == pytest.approx(2 / 3, abs=1e-4) and report["specificity"] == 0.5
    assert report["auroc"] == pytest.approx(5 / 6, abs=1e-4)
    assert report["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3, abs=1e-4)
    assert report["ece"] == pytest.approx((0.1 + 0.2 + 0.8 + 0.1 + 0.7) / 5, abs=1e-4)
    assert report["by_area"]["large"]["sensitivity"] == 0 and report["by_area"]["small"]["tp_dice"] == 1


def test_each_third_has_all_negatives_beside_it():
    thirds = measure(FIVE)["by_area"]
    assert list(thirds) == ["small", "medium", "large"]
    assert [(t["positives"], t["negatives"]) for t in thirds.values()] == [(1, 2)] * 3
    assert list(measure(FIVE[2:])["by_area"]) == ["small"], "no third without films"


def test_sites_stand_apart_where_there_are_two():
    sites = measure(FIVE)["by_site"]
    assert list(sites) == ["A", "B"]
    assert sites["A"]["pooled_dice"] == pytest.approx(2 * 15 / (30 + 20), abs=1e-4) and sites["A"]["specificity"] == 1
    assert sites["B"]["pooled_recall"] == 0 and sites["B"]["specificity"] == 0 and sites["B"]["tp_dice"] is None
    assert "by_site" not in measure([film for film in FIVE if film.site == "A"])


def test_nothing_answered_where_there_is_nothing():
    report = measure([scored(0, 0, 0, 0.1)])
    assert report["kaggle_dice"] == 1 and report["specificity"] == 1
    undefined = ("pooled_dice", "pooled_iou", "pooled_precision", "pooled_recall", "mean_positive_dice", "tp_dice")
    assert all(report[name] is None for name in (*undefined, "auroc", "average_precision", "sensitivity"))
    assert report["by_area"] == {}


def test_a_false_alarm_and_a_miss():
    alarm, miss = measure([scored(0, 7, 0, 0.9)]), measure([scored(7, 0, 0, 0.1)])
    assert alarm["kaggle_dice"] == alarm["pooled_dice"] == alarm["pooled_precision"] == alarm["specificity"] == 0
    assert miss["kaggle_dice"] == miss["pooled_dice"] == miss["pooled_recall"] == miss["mean_positive_dice"] == 0
    assert alarm["pooled_recall"] is None and miss["pooled_precision"] is None and miss["tp_dice"] is None


def test_pooled_follows_the_large_film_and_the_mean_does_not():
    report = measure([scored(1000, 1000, 1000, 0.9), scored(10, 10, 0, 0.9)])
    assert report["pooled_dice"] == pytest.approx(2000 / 2020, abs=1e-4) and report["mean_positive_dice"] == 0.5


def test_pixels_are_pooled_on_the_grid_and_dice_of_positives_is_native():
    film = ScoredFilm("", "", "", native=Counts(100, 100, 50), grid=Counts(10, 10, 9), image_probability=1, area_fraction=0.1)
    report = measure([film])
    assert report["mean_positive_dice"] == report["tp_dice"] == 0.5
    assert report["pooled_dice"] == report["kaggle_dice"] == report["pooled_precision"] == 0.9


def test_no_films_no_figures():
    assert set(scalars(Table.of([])).values()) == {None} and set(intervals([]).values()) == {None}


def test_ranking_figures_by_hand():
    truth, score = np.array([True, False, True, False]), np.array([0.9, 0.9, 0.4, 0.1])
    assert auroc(truth, score) == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    assert average_precision(truth, score) == pytest.approx(0.5 * 0.5 + 0.5 * 2 / 3)
    assert expected_calibration_error(truth, score) == pytest.approx((0.8 + 0.6 + 0.1) / 4)
    assert auroc(np.array([True]), np.array([0.5])) is None
    assert average_precision(truth, np.full(4, 0.5)) == 0.5, "equal scores are told apart by nothing"


def test_a_sure_film_falls_into_the_last_bin():
    count, promised, actual = calibration(np.array([True, False]), np.array([1.0, 0.0]))
    assert count.tolist() == [1, *[0] * 8, 1] and promised[9] == actual[9] == 1 and actual[0] == 0


def many(films: int) -> list[ScoredFilm]:
    """Each of another patient, every third with pneumothorax; some are missed, some others are false alarms."""
    rng = np.random.default_rng(3)
    found = []
    for i in range(films):
        truth = 100 if i % 3 == 0 else 0
        answer = int(rng.integers(20, 180)) if truth and rng.random() < 0.8 else 40 * int(rng.random() < 0.1)
        probability = float(np.clip(rng.normal(0.7 if truth else 0.3, 0.2), 0, 1))
        found.append(scored(truth, answer, min(truth, answer), probability, patient=str(i)))
    return found


def width(interval: list[float]) -> float:
    return interval[1] - interval[0]


def test_intervals_hold_their_estimate():
    films = many(300)
    estimates, found = scalars(Table.of(films)), intervals(films, resamples=400)
    assert list(found) == list(estimates)
    for name, (low, high) in found.items():
        assert 0 <= low <= high <= 1
        assert name == "ece" or low < estimates[name] < high, name


def test_an_interval_is_as_wide_as_theory_says():
    """Of a share p of n independent films: 2 * 1.96 * sqrt(p (1 - p) / n)."""
    films = [scored(0, i % 4 == 0, 0, 0.5, patient=str(i)) for i in range(400)]
    assert width(intervals(films)["specificity"]) == pytest.approx(2 * 1.96 * np.sqrt(0.75 * 0.25 / 400), rel=0.15)


def test_one_patient_with_half_of_the_films_widens_the_interval():
    """The estimate leans on one person: with him drawn twice or not at all it is another."""
    good, poor = scored(100, 100, 100, 0.9), scored(100, 50, 20, 0.6)
    films = [dataclasses.replace(good if i < 50 else poor, patient=str(i)) for i in range(100)]
    owned = [dataclasses.replace(film, patient="0" if i < 50 else str(i)) for i, film in enumerate(films)]
    clustered, independent = intervals(owned, 400), intervals(films, 400)
    for name in ("mean_positive_dice", "pooled_dice", "pooled_recall"):
        assert width(clustered[name]) > 2 * width(independent[name])


def test_a_patient_is_drawn_with_all_films():
    """Two films a patient that are the same film tell no more than one: the interval is that of half as many films."""
    once = many(120)
    twice = [film for film in once for _ in range(2)]
    assert intervals(twice, 200) == intervals(once, 200)


def test_one_seed_one_answer():
    films = many(90)
    assert intervals(films, 50, seed=1) == intervals(films, 50, seed=1) != intervals(films, 50, seed=2)


def test_no_interval_where_there_is_no_figure():
    found = intervals([scored(0, 0, 0, 0.1 * (i % 5), patient=str(i)) for i in range(20)], 50)
    undefined = ("auroc", "average_precision", "sensitivity", "mean_positive_dice", "tp_dice", "pooled_dice", "pooled_recall")
    assert all(found[name] is None for name in undefined)
    assert found["specificity"] == found["kaggle_dice"] == [1, 1] and found["ece"] is not None


def test_no_interval_from_one_patient():
    films = [dataclasses.replace(film, patient="only") for film in many(30)]
    assert set(intervals(films, 20).values()) == {None}, "a width of 0 would be a lie"
