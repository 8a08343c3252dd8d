"""What is marked outside the body is no finding, nothing inside it is lost, and a side is one of the body's midline."""

import cv2
import numpy as np
import pytest
from small_film import phantom as plain_phantom
from small_film import read_back
from tiny_network import SIZE, tiny_artifact

from segmenter.engine import Segmenter
from segmenter.film.decode import decode
from segmenter.model.body import upright_body_mask
from segmenter.model.placement import Placement
from segmenter.objects.kinds import ObjectKind
from segmenter.objects.midline import find_midline
from segmenter.objects.outline import regions_on, sides_of
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import STREAMS, canvas_of, draw_phantom
from segmenter.settings import Settings
from segmenter.values import Prediction

SHAPE = (420, 360)
SEEDS = range(71000, 71016)


@pytest.fixture(scope="module")
def drawn():
    return [draw_phantom(seed, shape=SHAPE, pneumothorax=True) for seed in SEEDS]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return Segmenter(tiny_artifact(tmp_path_factory.mktemp("tiny")), Settings(device="cpu", min_side_px=128))


def with_air(image: np.ndarray, left: int, right: int) -> np.ndarray:
    """The film, wider by that much air on each side, which meets the body's dark edge."""
    return np.pad(image, ((0, 0), (left, right)), constant_values=float(np.percentile(image, 1)))


def axis_of(seed: int) -> float:
    """The column of the body's midline at half the film's height."""
    stream = np.random.default_rng([seed, STREAMS.index("setting")])
    present = draw_phantom(seed, shape=(64, 64)).distractors
    canvas = canvas_of(stream, SHAPE, "rotation" in present)
    return float(canvas.to_px(np.array([[0.0, canvas.centre[1]]]))[0, 0])


def test_no_pneumothorax_lies_outside_the_body_however_the_film_is_cut(drawn):
    for one in drawn:
        assert not (one.truth & ~upright_body_mask(one.image)).any(), one.seed
        for cut in (slice(30, -30), slice(60, -60)):  # the second one cuts through the chest wall
            image, truth = one.image[60:330, cut], one.truth[60:330, cut]
            assert not (truth & ~upright_body_mask(np.ascontiguousarray(image))).any(), (one.seed, cut)


def test_air_beside_the_body_is_outside_and_a_film_without_air_is_all_body(drawn):
    for one in drawn:
        wide = with_air(one.image, 120, 40)
        cv2.line(wide, (60, 0), (60, SHAPE[0] - 1), 0.9, 2)  # a cable in the air
        outside = ~upright_body_mask(wide)
        assert outside[:, 40:80].all() and outside.mean() > 0.2, one.seed
    lungs_only = np.ascontiguousarray(drawn[0].image[120:300, 90:270])
    assert upright_body_mask(lungs_only).all()
    for flat in (np.zeros((9, 7), np.float32), np.full((300, 200), 0.5, np.float32), np.zeros((1, 1), np.float32)):
        assert upright_body_mask(flat).all(), "no body stands out"


@pytest.mark.parametrize("frame", [0.0, 1.0])
def test_a_frame_of_one_grey_hides_no_air(drawn, frame):
    wide = np.pad(with_air(drawn[0].image, 100, 100), 20, constant_values=frame)
    body = upright_body_mask(wide)
    assert not body[30:-30, 40:90].any() and not (np.pad(drawn[0].truth, ((20, 20), (120, 120))) & ~body).any()


@pytest.mark.parametrize("orientation", [["L", "F"], ["F", "R"]])
def test_a_region_in_the_air_is_dropped_and_alone_it_makes_the_film_indeterminate(drawn, segmenter, orientation):
    one = drawn[1]
    image, truth = with_air(one.image, 100, 20), np.pad(one.truth, ((0, 0), (100, 20)))
    in_air = np.zeros_like(truth)
    in_air[150:250, 20:60] = True
    if orientation != ["L", "F"]:
        image, truth, in_air = (np.ascontiguousarray(np.rot90(part)) for part in (image, truth, in_air))
    dataset = phantom_dataset(plain_phantom(image.shape, image), kind="CR", bits=12)
    dataset.PatientOrientation = orientation
    dataset = read_back(dataset)
    shown = decode(dataset)

    def answer(marked: np.ndarray):
        placed = Placement.fit(image.shape, SIZE, shown.turn).to_model(marked.astype(np.float32))
        segmenter.predict = lambda images: [Prediction(placed, 0.9)]
        return segmenter.segment([dataset])[0]

    both, without = answer(truth | in_air), answer(truth)
    assert both.name == "pneumothorax" and np.array_equal(both.decision.mask, without.decision.mask)
    assert without.decision.mask[truth].mean() > 0.7, "the grid of this network is coarse"
    alone = answer(in_air)
    assert (alone.outcome, alone.code) == ("indeterminate", "no-region")
    assert [made.role for made in segmenter.objects(dataset, alone, kinds=(ObjectKind.SEG, ObjectKind.SR))] == ["sr"]


def test_the_midline_is_that_of_the_body_and_not_of_the_film(drawn):
    errors = []
    for one in drawn:
        axis = axis_of(one.seed)
        for left, right in ((0, 0), (120, 0), (0, 120)):
            wide = with_air(one.image, left, right)
            errors.append(abs(find_midline(wide).at - axis - left) / SHAPE[1])
        cut = np.ascontiguousarray(one.image[:, 50:])
        errors.append(abs(find_midline(cut).at - axis + 50) / SHAPE[1])
    assert np.median(errors) < 0.02 and max(errors) < 0.08, sorted(errors)[-5:]


@pytest.mark.parametrize(("orientation", "sides"), [
    (["L", "F"], ("right", "left")), (["R", "F"], ("left", "right")), (["F", "R"], ("right", "left")),
    ([], ("image left", "image right")),
])  # fmt: skip
def test_a_side_is_said_by_the_midline_and_never_near_it(drawn, orientation, sides):
    """The body lies far right on the film: both lungs are in its right two thirds."""
    one = drawn[2]
    shift = 200
    image, axis = with_air(one.image, shift, 0), axis_of(one.seed) + shift
    assert axis - 0.15 * SHAPE[1] > image.shape[1] / 2, "by the film's middle, all of it would be one side"
    dataset = phantom_dataset(plain_phantom(image.shape, image), kind="CR", bits=12)
    for offset, expected in ((-0.2, sides[0]), (0.2, sides[1]), (0.03, "near the midline"), (-0.03, "near the midline")):
        mask = np.zeros(image.shape, bool)
        middle = round(axis + offset * SHAPE[1])
        mask[200:220, middle - 8 : middle + 8] = True
        radiograph = decode(read_back(dataset))
        turned = {"FR": np.rot90, "RF": lambda a: a}.get("".join(orientation), lambda a: a)
        if orientation:
            own = phantom_dataset(plain_phantom(turned(image).shape, np.ascontiguousarray(turned(image))), kind="CR", bits=12)
            own.PatientOrientation = orientation
            radiograph = decode(read_back(own))
        else:
            bare = read_back(dataset)
            del bare.PatientOrientation
            radiograph = decode(bare)
        parts = regions_on(radiograph, np.ascontiguousarray(turned(mask)))
        assert sides_of(parts) == (expected,), (offset, orientation)
