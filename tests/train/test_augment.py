"""Image and truth move together, nothing drifts, losses are what they are called."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from train.fit.augment import augment, resize_pair
from train.fit.losses import batch_dice_loss, film_dice_loss, focal_loss, lovasz_hinge, symmetric_lovasz, total_loss
from train.fit.recipe import Augmentation, LossWeights

STILL = Augmentation(
    flip=0, affine=0, shift=0, scale=0, rotation_degrees=0, warp=0, elastic=0, grid=0, optical=0,
    tone=0, gamma=0, contrast=0, window=0, noise=0,
)  # fmt: skip
LIVELY = Augmentation(flip=0.5, warp=1.0, elastic=0.02, grid=0.03, optical=0.2)
SIDE = 128


def marked(n: int, y: int = 64, x: int = 64, radius: int = 6) -> torch.Tensor:
    """(n, 1, SIDE, SIDE): a disc at (y, x), pixel centres at half-integers."""
    ticks = torch.arange(SIDE) + 0.5
    disc = ((ticks[:, None] - y) ** 2 + (ticks[None] - x) ** 2 < radius**2).float()
    return disc.expand(n, 1, SIDE, SIDE).clone()


def centre(truth: torch.Tensor) -> torch.Tensor:
    """(n, 2): y, x of the middle of what is marked, in px."""
    ticks, mass = torch.arange(truth.shape[-1]) + 0.5, truth.sum((1, 2, 3))
    return torch.stack([(truth.sum((1, 3)) * ticks).sum(1) / mass, (truth.sum((1, 2)) * ticks).sum(1) / mass], 1)


def moves(how: Augmentation, n: int = 400, y: int = 64, x: int = 64) -> torch.Tensor:
    """(n, 2) displacement of a mark at (y, x), as shares of the side."""
    mark = marked(n, y, x)
    _, truth = augment(mark, mark, SIDE, how, seed=5)
    assert (truth.sum((1, 2, 3)) > 0).all()
    return (centre(truth) - torch.tensor([y, x])) / SIDE


def test_nothing_on_changes_nothing() -> None:
    image, truth = torch.rand(3, 1, SIDE, SIDE), marked(3)
    again, same = augment(image, truth, SIDE, STILL, seed=1)
    assert torch.allclose(again, image, atol=1e-5) and torch.equal(same, truth)


@pytest.mark.parametrize("how", [
    {"affine": 1.0, "shift": 0.06}, {"affine": 1.0, "scale": 0.2}, {"affine": 1.0, "rotation_degrees": 20},
    {"warp": 1.0, "elastic": 0.02}, {"warp": 1.0, "grid": 0.03}, {"warp": 1.0, "optical": 0.3}, {"flip": 0.5},
    {"tone": 1.0, "gamma": 0.4, "contrast": 0.2, "window": 0.1, "noise": 0.05, "detail": 0.5, "blur": 1.0},
], ids=lambda how: next(k for k in how if k not in ("affine", "warp")))  # fmt: skip
def test_no_augmentation_drifts(how: dict) -> None:
    """On average a mark in the middle stays where it is: the published recipe moved every film by a fifth."""
    moved = moves(dataclasses.replace(STILL, **how))
    assert moved.mean(0).abs().max() < 0.006, f"mean shift {moved.mean(0).tolist()}"
    if "shift" in how:
        assert 0.05 < moved.abs().max() <= 0.065 and moved.std(0) == pytest.approx(0.12 / 12**0.5, rel=0.15)


def test_the_published_fault_is_a_constant_shift() -> None:
    moved = moves(dataclasses.replace(STILL, affine=1.0, shift=0.2, constant_shift=True))
    assert torch.allclose(moved, torch.full_like(moved, 0.2), atol=0.005), "a fifth to the right and a fifth down, always"


def test_a_mirror_is_a_mirror_and_a_turn_turns_about_the_middle() -> None:
    flipped = moves(dataclasses.replace(STILL, flip=1.0), n=4, y=40, x=30)
    assert torch.allclose(flipped, torch.tensor([0.0, (98 - 30) / SIDE]).expand(4, 2), atol=1e-4), "left and right only"
    turned = moves(dataclasses.replace(STILL, affine=1.0, rotation_degrees=20), y=64, x=100)
    radius = ((turned * SIDE + torch.tensor([64.0, 100.0]) - 64) ** 2).sum(1).sqrt()
    assert torch.allclose(radius, torch.full_like(radius, 36.0), atol=0.5)


@pytest.mark.parametrize("crop", [SIDE, 96], ids=["whole", "crop"])
def test_image_and_truth_stay_together(crop: int) -> None:
    """The image is the truth itself; whatever happens, they are still the same afterwards."""
    mark = marked(64, y=50, x=80, radius=12)
    image, truth = augment(mark, mark, crop, dataclasses.replace(LIVELY, tone=0, noise=0), seed=2)
    assert image.shape == truth.shape == (64, 1, crop, crop)
    kept = truth.sum((1, 2, 3)) > 30
    overlap = ((image > 0.5) & (truth > 0)).sum((1, 2, 3)) * 2 / ((image > 0.5).sum((1, 2, 3)) + truth.sum((1, 2, 3)))
    assert kept.sum() > 40 and overlap[kept].min() > 0.99
    assert set(truth.unique().tolist()) <= {0.0, 1.0}


def test_what_is_dropped_is_not_asked_for() -> None:
    ones = torch.ones(32, 1, SIDE, SIDE)
    image, truth = augment(ones, ones, SIDE, dataclasses.replace(STILL, dropout=1.0), seed=3)
    assert torch.equal(image > 0, truth > 0) and 0.8 < truth.mean() < 0.999


def test_tones_stay_in_range_and_a_seed_is_a_batch() -> None:
    image, truth = torch.rand(8, 1, SIDE, SIDE), marked(8)
    how = dataclasses.replace(LIVELY, detail=0.6, blur=1.0, noise=0.1, dropout=0.5)
    one, two, other = (augment(image, truth, SIDE, how, seed)[0] for seed in (7, 7, 8))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert one.min() >= 0 and one.max() <= 1 and not torch.equal(one[0], one[1])


def test_shrinking_averages_as_placement_does() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4) / 16
    small, truth = resize_pair(image, (image > 0.5).float(), 2)
    assert small[0, 0].tolist() == [[2.5 / 16, 4.5 / 16], [10.5 / 16, 12.5 / 16]] and truth[0, 0].tolist() == [[0, 0], [1, 1]]


# -- losses ----------------------------------------------------------------------------------------------------


def test_batch_dice_loss_by_hand() -> None:
    truth = torch.zeros(2, 1, 2, 2)
    truth[0] = 1
    sure = torch.where(truth > 0, 50.0, -50.0)
    assert batch_dice_loss(sure, truth) == pytest.approx(0, abs=1e-6)
    assert batch_dice_loss(-sure, truth) == pytest.approx(1 - 1 / 9, abs=1e-6)


def test_film_dice_loss_weighs_films_alike_and_leaves_negatives_out() -> None:
    """A large lesion found, a small one missed, an empty film with one false pixel: (0 + 1) / 2, but for the 1 that smooths."""
    truth = torch.zeros(3, 1, 10, 10)
    truth[0], truth[1, 0, 0, :9] = 1, 1
    answer = truth.clone()
    answer[1], answer[2, 0, 0, 0] = 0, 1
    logits = torch.where(answer > 0, 50.0, -50.0)
    assert film_dice_loss(logits, truth) == pytest.approx((1 - 1 / 10) / 2, abs=1e-6)
    assert film_dice_loss(logits[2:], truth[2:]) == 0


@pytest.mark.parametrize("wrong", [[], [0], [0, 5], [1, 2, 3, 9], list(range(12))])
def test_lovasz_is_the_jaccard_loss_at_its_corners(wrong: list[int]) -> None:
    """With margins of +1 (right) and -1 (wrong), hinge errors are 0 and 2: the loss is twice 1 - IoU of the answer."""
    truth = torch.zeros(1, 1, 3, 4)
    truth.view(-1)[:5] = 1
    sign = torch.ones(12)
    sign[wrong] = -1
    logits = (sign * (2 * truth.view(-1) - 1)).view_as(truth)
    answer = logits > 0
    union = (answer | (truth > 0)).sum()
    expected = 1 - (answer & (truth > 0)).sum() / union
    assert lovasz_hinge(logits, truth) == pytest.approx(2 * float(expected), abs=1e-6)
    back = 1 - (~answer & (truth == 0)).sum() / (~answer | (truth == 0)).sum()
    assert symmetric_lovasz(logits, truth) == pytest.approx(float(expected + back), abs=1e-6)


def test_focal_loss_forgets_sure_pixels() -> None:
    truth = torch.ones(1, 1, 1, 1)
    p = 0.9
    logit = torch.full_like(truth, float(np.log(p / (1 - p))))
    assert focal_loss(logit, truth) == pytest.approx(-((1 - p) ** 2) * np.log(p), rel=1e-4)


def test_total_loss_sums_what_weighs_and_gives_the_head_a_gradient() -> None:
    truth, mask, image = marked(2), torch.randn(2, 1, SIDE, SIDE, requires_grad=True), torch.randn(2, 1, requires_grad=True)
    parts = total_loss(mask, image, truth, LossWeights(bce=2, dice=1, image=0, lovasz=0.5))
    assert parts.keys() == {"bce", "dice", "image", "lovasz", "total"}
    total = 2 * parts["bce"] + parts["dice"] + 0.5 * parts["lovasz"]
    assert parts["total"].item() == pytest.approx(total.item(), rel=1e-6)
    parts["total"].backward()
    assert image.grad is not None and mask.grad is not None and mask.grad.abs().sum() > 0
