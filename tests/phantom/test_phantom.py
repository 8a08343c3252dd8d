"""The phantom: one seed is one film, a pair differs in one thing, sizes follow the SIIM-ACR masks."""

import io

import numpy as np
import pytest
from pydicom import dcmread
from scipy.ndimage import binary_dilation

from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import DISTRACTORS, draw_phantom
from segmenter.phantom.values import Phantom

SHAPE = (320, 272)


@pytest.fixture(scope="module")
def crowd() -> list[Phantom]:
    return [draw_phantom(seed, shape=(192, 164)) for seed in range(100, 160)]


def test_a_seed_is_a_film():
    one, two = draw_phantom(7, shape=SHAPE), draw_phantom(7, shape=SHAPE)
    assert np.array_equal(one.image, two.image) and np.array_equal(one.truth, two.truth)
    assert one.image.dtype == np.float32 and one.image.shape == SHAPE == one.truth.shape
    assert 0 <= one.image.min() < 0.1 and 0.9 < one.image.max() <= 1
    assert not np.array_equal(one.image, draw_phantom(8, shape=SHAPE).image)


def test_a_seed_is_the_same_film_at_another_size():
    small, large = draw_phantom(4, shape=(320, 272)), draw_phantom(4, shape=(1280, 1088))
    assert large.spacing_mm == pytest.approx(small.spacing_mm / 4, rel=1e-6)
    assert large.area_fraction == pytest.approx(small.area_fraction, rel=0.1)
    shrunk = large.image.reshape(320, 4, 272, 4).mean(axis=(1, 3))
    assert np.abs(shrunk - small.image).mean() < 0.02


def test_a_pair_differs_in_the_pneumothorax_alone():
    sick, well = (draw_phantom(11, shape=SHAPE, pneumothorax=p) for p in (True, False))
    assert sick.truth.any() and not well.truth.any() and sick.distractors == well.distractors
    inside = sick.image[sick.truth].mean() - well.image[sick.truth].mean()
    assert inside < -0.02, "air is darker than lung"
    other_half = np.s_[:, SHAPE[1] // 2 :] if sick.side == "left" else np.s_[:, : SHAPE[1] // 2]
    assert np.abs(sick.image - well.image)[other_half].mean() < 1e-3, "the other side stays as it was"


def test_a_pair_differs_in_the_tube_alone():
    with_tube, without = (draw_phantom(12, shape=SHAPE, tube=t) for t in (True, False))
    changed = np.abs(with_tube.image - without.image) > 0.02
    assert 0.001 < changed.mean() < 0.06, "a tube is thin"
    assert np.array_equal(with_tube.truth, without.truth)


def test_sizes_sides_and_distractors_follow_the_plan(crowd):
    areas = np.array([p.area_fraction for p in crowd if p.pneumothorax])
    assert 0.35 < len(areas) / len(crowd) < 0.65
    for share, wanted in ((0.25, 0.0039), (0.5, 0.0082), (0.75, 0.0175)):
        assert np.quantile(areas, share) == pytest.approx(wanted, rel=0.5)  # some 50 films; the exam asks for .2
    for name in DISTRACTORS:
        assert np.mean([name in p.distractors for p in crowd]) >= 0.03


def test_truth_is_bounded_by_a_visible_line(crowd):
    """Just inside the pleural line it is brighter than in the air, in most films (ribs cross some)."""
    steps = []
    for p in (p for p in crowd if p.area_fraction > 0.005):
        rim = binary_dilation(p.truth, iterations=2) & ~p.truth
        steps.append(p.image[rim].mean() - p.image[p.truth].mean())
    assert np.mean(np.array(steps) > 0) > 0.8


@pytest.mark.parametrize(
    ("kind", "photometric", "bits", "rescale"),
    [
        ("DX", "MONOCHROME2", 12, (1.0, 0.0)),
        ("DX", "MONOCHROME1", 16, (1.0, 0.0)),
        ("CR", "MONOCHROME1", 10, (2.0, -100.0)),
        ("SC", "MONOCHROME2", 8, (1.0, 0.0)),
    ],
)
def test_film_shows_the_phantom(kind, photometric, bits, rescale):
    """Written, read and windowed as PS3.3 C.11.2.1.2.1 says, the object shows the phantom again."""
    phantom = draw_phantom(3, shape=(96, 81))
    written = io.BytesIO()
    phantom_dataset(phantom, kind=kind, photometric=photometric, bits=bits, rescale=rescale, stored_range=(0.2, 0.7)).save_as(
        written, enforce_file_format=True
    )
    again = dcmread(io.BytesIO(written.getvalue()))
    values = again.pixel_array * rescale[0] + rescale[1]
    centre, width = float(again.WindowCenter), float(again.WindowWidth)
    shown = np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    shown = 1 - shown if photometric == "MONOCHROME1" else shown
    assert np.abs(shown - phantom.image).max() < 2 / 2**bits / 0.5
    assert again.PatientName.family_name == "Phantom"
    twice = phantom_dataset(phantom, kind=kind, photometric=photometric, bits=bits)
    assert twice.SOPInstanceUID == again.SOPInstanceUID, "a seed has one UID"


def test_film_refuses_what_does_not_exist():
    with pytest.raises(ValueError, match="no such film"):
        phantom_dataset(draw_phantom(3, shape=(96, 81)), bits=7)
    with pytest.raises(ValueError, match="64 pixels"):
        draw_phantom(1, shape=(32, 32))
