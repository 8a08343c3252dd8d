"""Pictures: PNG files of the promised size, films in their proportions, outlines where the masks end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from train.report import pictures
from train.report.metrics import Counts, ScoredFilm

FILMS = [
    ScoredFilm(str(i), str(i), "", Counts(*c), Counts(*c), p, c[0] / 1e5)
    for i, (c, p) in enumerate(
        [((900, 800, 700), 0.9), ((200, 90, 60), 0.6), ((50, 0, 0), 0.3), ((0, 0, 0), 0.1), ((0, 9, 0), 1.0)]
    )
]
CURVE = [
    {"image_threshold": t, "sensitivity": 1 - t, "specificity": t, "mean_positive_dice": None, "kaggle_dice": 0.5}
    for t in (0.1, 0.5, 0.9)
]
JOURNAL = [
    {"stage": "0", "epoch": "1", "loss_bce": "0.9", "learning_rate": "1e-4", "auroc": ""},
    {"stage": "0", "epoch": "2", "loss_bce": "0.5", "learning_rate": "1e-4", "auroc": "0.8"},
    {"stage": "1", "epoch": "1", "loss_bce": "0.4", "learning_rate": "1e-5", "auroc": "0.9"},
]
DRAWN = {
    "reliability": (lambda path: pictures.reliability(FILMS, path), lambda path: pictures.reliability([], path)),
    "area": (lambda path: pictures.dice_against_area(FILMS, path), lambda path: pictures.dice_against_area(FILMS[3:], path)),
    "roc": (lambda path: pictures.roc(FILMS, path, (0.67, 0.5)), lambda path: pictures.roc(FILMS[:3], path, None)),
    "curve": (
        lambda path: pictures.threshold_curve(CURVE, path, {"balanced": 0.4, "sensitive": 0.41}),
        lambda path: pictures.threshold_curve([], path, {}),
    ),
    "losses": (lambda path: pictures.losses(JOURNAL, path), lambda path: pictures.losses([], path)),
}


def read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return cv2.imread(str(path))[:, :, ::-1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DRAWN)
def test_pictures_are_drawn_even_of_nothing(name: str, tmp_path: Path):
    full, empty = tmp_path / "full.png", tmp_path / "empty.png"
    for draw, path in zip(DRAWN[name], (full, empty), strict=True):
        draw(path)
        assert read(path).shape == (700, 900, 3)
    assert (read(full) != read(empty)).any()


def test_same_films_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        pictures.roc(FILMS, tmp_path / name, None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_misses_are_marked(tmp_path: Path):
    pictures.dice_against_area(FILMS[:2], tmp_path / "found.png")
    pictures.dice_against_area(FILMS[:3], tmp_path / "missed.png")
    cross, shots = np.array([0xD5, 0x5E, 0x00]), [read(tmp_path / f"{name}.png").astype(int) for name in ("found", "missed")]
    found, missed = ((abs(shot[640:665, :600] - cross).sum(2) < 30).sum() for shot in shots)  # the axis, left of the legend
    assert found == 0 < missed


def test_matplotlib_waits_until_it_is_needed():
    program = "import sys, train.report.pictures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def block(shape: tuple[int, int], top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def tiled(mask: np.ndarray) -> np.ndarray:
    """A mask of 2:1 or 1:2 where it belongs in a tile of 256 px: (256, 256) bool, bars of 64 px on both sides."""
    upright = mask.shape[0] > mask.shape[1]
    small = cv2.resize(mask.astype(np.uint8), (128, 256) if upright else (256, 128), interpolation=cv2.INTER_NEAREST)
    return np.pad(small > 0, ((0, 0), (64, 64)) if upright else ((64, 64), (0, 0)))


def border(mask: np.ndarray, reach: int) -> np.ndarray:
    """The pixels at most `reach` px from the edge of `mask`, on either side of it."""
    near, bits = np.ones((2 * reach + 1,) * 2, np.uint8), mask.astype(np.uint8)
    return (cv2.dilate(bits, near) > 0) & (cv2.erode(bits, near) == 0)


@pytest.mark.parametrize("shape", [(400, 200), (200, 400), (64, 32), (1500, 750)])
def test_outlines_lie_on_the_borders_of_a_film_that_is_not_square(shape: tuple[int, int], tmp_path: Path):
    height, width = shape
    truth = block(shape, height // 8, height // 2, width // 8, width // 2)
    answer = block(shape, height * 5 // 8, height * 7 // 8, width * 5 // 8, width * 7 // 8)
    path = tmp_path / "sheet.png"
    pictures.contact_sheet([(np.full(shape, 0.5, np.float32), truth, answer, "")], path, columns=1, tile=256)

    tile = read(path)[pictures.GAP :, pictures.GAP :][:256, :256].astype(int)
    assert ((tile.max(2) > 0) == tiled(np.ones(shape, bool))).all(), "twice as long as wide still, in the middle of its tile"
    red, green, _ = tile.transpose(2, 0, 1)
    # The outline runs through the middle of the film's outermost pixels, which may be larger than the tile's, and is smoothed.
    reach = 2 + 256 // max(shape) // 2
    for coloured, mask in ((green > red + 30, tiled(truth)), (red > green + 30, tiled(answer))):
        assert border(mask, reach)[coloured].all(), "no colour away from the border"
        near = cv2.dilate(coloured.astype(np.uint8), np.ones((2 * reach + 1,) * 2)) > 0
        assert near[border(mask, 1) & mask].all(), "all round"


def test_sheets_are_laid_out_in_rows(tmp_path: Path):
    film, nothing = np.ones((50, 50), np.float32), np.zeros((50, 50), bool)
    captions = "one", "zwei – Dice 0.5", "three, with far more to tell than fits " * 3
    tiles = [(film, nothing, nothing, words) for words in captions]
    pictures.contact_sheet(tiles, tmp_path / "sheet.png", columns=2, tile=100)
    sheet, high = read(tmp_path / "sheet.png"), 100 + 16
    assert sheet.shape == (2 * high + 3 * pictures.GAP, 2 * 100 + 3 * pictures.GAP, 3)
    for row, column in ((0, 0), (0, 1), (1, 0)):
        top, left = pictures.GAP + row * (high + pictures.GAP), pictures.GAP + column * (100 + pictures.GAP)
        cell = sheet[top : top + high, left : left + 100]
        assert (cell[:100] == 255).all() and (cell[100:] > 128).any(), "a film, and words below it"
    assert (sheet[-high - pictures.GAP :, -100 - pictures.GAP :] == pictures.GAP_GREY).all(), "no fourth"


def test_a_sheet_that_cannot_be_written_says_so(tmp_path: Path):
    with pytest.raises(OSError):
        pictures.contact_sheet([], tmp_path / "nowhere" / "sheet.png")
