"""From model grid to answer: the network's contract, and what post-processing keeps."""

import numpy as np
import pytest
import torch
from tiny_network import SIZE, images, tiny_artifact

from segmenter.errors import Refused
from segmenter.model.artifact import OperatingPoint
from segmenter.model.mask import decide, without_small_components
from segmenter.model.network import padding_in_convolutions
from segmenter.model.placement import Placement
from segmenter.model.predict import Predictor
from segmenter.values import Prediction, Spacing, Turn

POINT = OperatingPoint(image_threshold=0.5, mask_threshold=0.5, min_area_mm2=100.0, min_area_px=9.0)


def test_a_film_does_not_depend_on_its_neighbours(tmp_path):
    predictor = Predictor(tiny_artifact(tmp_path), device="cpu")
    batch = images(3)
    together = predictor(batch)
    for one, image in zip(together, batch, strict=True):
        (alone,) = predictor(image[None])
        assert one.probability.shape == (SIZE, SIZE) and one.probability.dtype == np.float32
        assert np.abs(alone.probability - one.probability).max() < 1e-4
        assert abs(alone.image_probability - one.image_probability) < 1e-4


@pytest.mark.parametrize("encoder", ["efficientnet-b0", "efficientnet-b4"])
def test_padding_in_the_convolutions_changes_no_answer(encoder):
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    plain = smp.Unet(encoder, encoder_weights=None, in_channels=1, classes=1).eval()
    x = torch.randn(2, 1, 96, 160)
    with torch.inference_mode():
        before = plain(x)
        steps = [m for m in plain.modules() if isinstance(m, torch.nn.ZeroPad2d)]
        after = padding_in_convolutions(plain)(x)
    left = [m for m in plain.modules() if isinstance(m, torch.nn.ZeroPad2d)]
    assert len(left) <= 5 < len(steps) and all(len(set(m.padding)) > 1 for m in left), "only what is padded on one side more"
    assert (after - before).abs().max() < 1e-5 * before.abs().max()


def test_with_flips_a_mirrored_film_gets_the_mirrored_answer(tmp_path):
    batch = images(1)
    for flips in (True, False):
        predictor = Predictor(tiny_artifact(tmp_path / str(flips), flips=flips), device="cpu")
        (plain,), (mirrored,) = predictor(batch), predictor(batch[..., ::-1])
        difference = np.abs(mirrored.probability[:, ::-1] - plain.probability).max()
        assert (difference < 1e-4) == flips


def test_temperature_softens_the_image_decision_only(tmp_path):
    (sharp,) = Predictor(tiny_artifact(tmp_path / "1", temperature=1.0, flips=False), device="cpu")(images(1))
    (soft,) = Predictor(tiny_artifact(tmp_path / "2", temperature=2.0, flips=False), device="cpu")(images(1))
    logit = np.log(sharp.image_probability / (1 - sharp.image_probability))
    assert soft.image_probability == pytest.approx(1 / (1 + np.exp(-logit / 2)), abs=1e-6)
    assert np.array_equal(sharp.probability, soft.probability)


def placed_films(count):
    """(count, 1, SIZE, SIZE): films of 90 x 56 px, upright and on their side, on the model grid."""
    films = [np.random.default_rng(n).random((90, 56) if n % 2 else (56, 90), np.float32) for n in range(count)]
    return np.stack([Placement.fit(film.shape, SIZE).to_model(film) for film in films])[:, None]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("flips", [True, False])
def test_an_ensemble_answers_the_mean_of_its_members(tmp_path, flips, count):
    films = placed_films(count)
    single = [Predictor(tiny_artifact(tmp_path / str(n), [n], flips=flips), device="cpu")(films) for n in (1, 2)]
    together = Predictor(tiny_artifact(tmp_path / "both", [1, 2], flips=flips, folds=[0, 3]), device="cpu")(films)
    for mean, one, two in zip(together, *single, strict=True):
        assert np.abs(one.probability - two.probability).max() > 0.05, "two equal members would prove nothing"
        assert mean.probability.shape == (SIZE, SIZE) and mean.probability.dtype == np.float32
        assert np.abs(mean.probability - (one.probability + two.probability) / 2).max() < 1e-6
        assert mean.image_probability == pytest.approx((one.image_probability + two.image_probability) / 2, abs=1e-6)


@torch.inference_mode()
def test_probabilities_are_averaged_after_the_temperature_and_the_mirror(tmp_path):
    """The whole rule from the networks' logits: neither logits nor weights are averaged."""
    films = placed_films(1)
    artifact = tiny_artifact(tmp_path, [1, 2], temperature=2.0)
    (answer,) = Predictor(artifact, device="cpu")(films)
    x = (torch.from_numpy(films) - 0.5) / 0.25
    masks, decisions = [], []
    for network in artifact.networks():
        for mirror in (lambda t: t, lambda t: t.flip(3)):
            mask, image = network(mirror(x))
            masks.append(torch.sigmoid(mirror(mask))[0, 0].numpy())
            decisions.append(torch.sigmoid(image / 2.0).item())
    assert np.abs(answer.probability - np.mean(masks, axis=0)).max() < 1e-5
    assert answer.image_probability == pytest.approx(np.mean(decisions), abs=1e-5)


def test_the_wrong_grid_is_a_programming_error(tmp_path):
    with pytest.raises(ValueError, match=r"expected \(N, 1, 64, 64\)"):
        Predictor(tiny_artifact(tmp_path), device="cpu")(np.zeros((1, 1, 32, 64), np.float32))


def prediction(*boxes, image=0.9):
    """(SIZE, SIZE) with probability .9 in `boxes` (top, left, bottom, right), .02 elsewhere."""
    probability = np.full((SIZE, SIZE), 0.02, np.float32)
    for top, left, bottom, right in boxes:
        probability[top:bottom, left:right] = 0.9
    return Prediction(probability, image)


def test_the_mask_lies_on_native_pixels():
    """A film of 320 x 256 px on a grid of 64: 5 native pixels to one, the film in the middle of the width."""
    placement = Placement.fit((320, 256), SIZE)
    decision = decide(prediction((10, 16, 20, 30)), placement, POINT, Spacing(0.5, 0.5, "PixelSpacing"), 0.4)
    left = round(placement.left)
    assert decision.positive and decision.components == 1
    expected = np.zeros((320, 256), bool)
    expected[50:100, (16 - left) * 5 : (30 - left) * 5] = True
    assert (decision.mask ^ expected).sum() < 2 * (50 + 70)  # at most one pixel along the border
    assert decision.area_mm2 == pytest.approx(decision.mask.sum() * 0.25)


def test_a_turned_film_gets_its_mask_back_on_its_own_matrix():
    for turn in (Turn(True, 1), Turn(False, 3), Turn(True, 0)):
        placement = Placement.fit((320, 256), SIZE, turn)
        native = np.zeros((320, 256), np.float32)
        native[40:120, 150:230] = 1
        decision = decide(Prediction(placement.to_model(native), 0.9), placement, POINT, None, 0.4)
        truth = native > 0
        assert 2 * (decision.mask & truth).sum() / (decision.mask.sum() + truth.sum()) > 0.97


def test_specks_go_by_mm2_when_the_spacing_is_known_and_by_model_pixels_when_not():
    placement = Placement.fit((320, 320), SIZE)
    small, large = (4, 4, 6, 6), (30, 30, 42, 42)  # 2 x 2 and 12 x 12 model pixels, 100 and 3,600 native ones
    unknown = decide(prediction(small, large), placement, POINT, None, 0.4)
    assert unknown.components == 1 and unknown.area_mm2 is None and not unknown.mask[:100, :100].any()
    coarse = decide(prediction(small, large), placement, POINT, Spacing(2.0, 2.0, "PixelSpacing"), 0.4)
    assert coarse.components == 2
    fine = decide(prediction(small, large), placement, POINT, Spacing(0.1, 0.1, "PixelSpacing"), 0.4)
    assert not fine.positive and fine.components == 0 and not fine.mask.any() and fine.area_mm2 == 0


def test_components_touch_at_corners():
    mask = np.eye(6, dtype=bool)
    mask[0, 5] = True
    kept, count = without_small_components(mask, 6)
    assert count == 1 and kept.sum() == 6 and not kept[0, 5]


def test_without_the_image_decision_there_is_no_mask():
    decision = decide(prediction((10, 16, 40, 40), image=0.49), Placement.fit((320, 256), SIZE), POINT, None, 0.4)
    assert not decision.positive and not decision.mask.any() and decision.mask.shape == (320, 256)
    assert not decision.lacks_region
    empty = decide(prediction(image=0.5), Placement.fit((320, 256), SIZE), POINT, None, 0.4)
    assert not empty.positive and empty.lacks_region, "a probability above the threshold is no negative answer"


@pytest.mark.parametrize(
    ("code", "probability", "image"),
    [
        ("non-finite-output", np.nan, 0.9),
        ("non-finite-output", np.inf, 0.1),
        ("non-finite-output", 1.5, 0.9),
        ("non-finite-output", -0.1, 0.9),
        ("non-finite-output", 0.2, float("nan")),
        ("non-finite-output", 0.2, 1.01),
    ],
)
def test_numbers_that_are_no_probabilities_are_refused(code, probability, image):
    bad = prediction((0, 0, 4, 4), image=image)
    bad.probability[10, 10] = probability
    with pytest.raises(Refused) as error:
        decide(bad, Placement.fit((320, 256), SIZE), POINT, None, 0.4)
    assert error.value.code == code


def test_a_mask_over_most_of_the_film_is_refused():
    with pytest.raises(Refused) as error:
        decide(prediction((0, 0, SIZE, 40)), Placement.fit((320, 320), SIZE), POINT, None, 0.4)
    assert error.value.code == "absurd-mask"
