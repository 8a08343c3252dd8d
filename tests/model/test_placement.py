"""A landmark goes to the model and comes back to the same place: half-pixel centres, every shape and turn."""

import numpy as np
import pytest

from segmenter.film.geometry import turned, turned_back
from segmenter.model.placement import Placement
from segmenter.values import Turn

TURNS = [Turn(mirror, quarters) for mirror in (False, True) for quarters in range(4)]


def blob(shape, y, x, sigma):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2)).astype(np.float32)


def centroid(image):
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return (rows * image).sum() / image.sum(), (columns * image).sum() / image.sum()


@pytest.mark.parametrize("turn", TURNS, ids=str)
@pytest.mark.parametrize(("shape", "size"), [((301, 200), 128), ((200, 333), 96), ((90, 70), 256), ((257, 255), 256)])
def test_landmarks_come_back_within_half_a_pixel(shape, size, turn):
    placement = Placement.fit(shape, size, turn)
    y, x = 0.3 * shape[0], 0.62 * shape[1]
    on_model = placement.to_model(blob(shape, y, x, sigma=max(4, 3 / placement.scale)))
    assert on_model.shape == (size, size) and on_model.dtype == np.float32
    upright = np.zeros(shape, bool)
    upright[round(y), round(x)] = True
    where = np.argwhere(turned(upright, turn))[0]
    expected = (where + 0.5) * placement.scale + (placement.top, placement.left) - 0.5
    assert np.abs(np.array(centroid(on_model)) - expected).max() < 0.5 + 0.5 * placement.scale
    back = centroid(placement.to_native(on_model))
    assert abs(back[0] - y) < 0.5 and abs(back[1] - x) < 0.5


@pytest.mark.parametrize("turn", TURNS, ids=str)
@pytest.mark.parametrize("aspect", [(2, 1), (1, 2), (0.4, 0.3), (0.143, 0.157), (10, 1)], ids=str)
@pytest.mark.parametrize("size", [96, 384])
def test_pixels_that_are_not_square_are_placed_by_their_size(aspect, turn, size):
    """A round dot of the body is round on the model's grid, and comes back to its place on the native matrix."""
    tall, wide = (one / min(aspect) for one in aspect)
    shape = round(360 / tall), round(280 / wide)
    placement = Placement.fit(shape, size, turn, aspect)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    y, x = 0.3 * shape[0], 0.62 * shape[1]
    radius = max(18.0, 2.5 * max(tall, wide))  # in native pixels of the shorter side
    dot = np.exp(-(((rows - y) * tall) ** 2 + ((columns - x) * wide) ** 2) / (2 * radius**2)).astype(np.float32)
    on_model = placement.to_model(dot)
    cy, cx = centroid(on_model)
    down, across = np.mgrid[:size, :size]
    spread = [np.sqrt((on_model * (axis - at) ** 2).sum() / on_model.sum()) for axis, at in ((down, cy), (across, cx))]
    assert spread[0] == pytest.approx(spread[1], rel=0.05) == pytest.approx(radius * size / 360, rel=0.1)
    back = centroid(placement.to_native(on_model))
    assert abs(back[0] - y) < 0.5 and abs(back[1] - x) < 0.5
    there = np.zeros((size, size), bool)
    there[round(cy), round(cx)] = True
    rows, columns = placement.native_box(there)
    assert rows.start <= y < rows.stop and columns.start <= x < columns.stop


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_turning_back_undoes_turning(turn):
    array = np.arange(12).reshape(3, 4)
    assert np.array_equal(turned_back(turned(array, turn), turn), array)


def test_the_whole_film_is_on_the_grid_and_the_rest_is_padding():
    placement = Placement.fit((400, 200), 100)
    on_model = placement.to_model(np.ones((400, 200), np.float32))
    assert on_model[:, 26:74].min() > 0.99 and on_model[:, :24].max() == 0 and on_model[:, 76:].max() == 0


def test_nothing_cannot_be_placed():
    with pytest.raises(ValueError, match="nothing to place"):
        Placement.fit((0, 10), 64)
    with pytest.raises(ValueError, match="nothing to place"):
        Placement.fit((10, 10), 64, aspect=(0, 1))
