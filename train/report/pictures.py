"""The figures as pictures, one PNG per function: 900 x 700 px, in colours that colour-blind people can distinguish (Okabe &
Ito).

matplotlib is imported when a picture is drawn, without pyplot, which keeps a global list of figures and needs a screen.
Outlines on a contact sheet are drawn as in `segmenter.objects.picture`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.objects.picture import FOUND, TRUTH, draw_outline
from train.report.metrics import ScoredFilm, Table, auroc, calibration, expected_calibration_error, ranked, scalars

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Tile = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], str]  # image [0, 1], truth, answer: (H, W); caption

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "#000000")
DASHES = ("-", "--", "-.", ":")  # beside the colour
GREY = "#767676"
GAP, GAP_GREY = 4, 72  # px between the films of a contact sheet, and their grey
CURVES = ("sensitivity", "specificity", "mean_positive_dice", "kaggle_dice")
FIGURES = tuple(scalars(Table.of([])))
USUAL_AREAS = (5e-4, 0.2)  # share of the film: SIIM-ACR's lesions from smallest to largest; the same axis in every picture
PREFIXES = ("validation_", "val_")


def reliability(scored: Sequence[ScoredFilm], path: Path) -> None:
    """Share of positive films against image probability in ten bins, and below it the films of each bin. The ECE is in the
    title."""
    films = Table.of(scored)
    count, promised, actual = calibration(films.positive, films.probability)
    middles, full = (np.arange(len(count)) + 0.5) / len(count), count > 0
    with _figure(path) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], "--", color=GREY, label="perfectly calibrated")
        above.plot(promised[full] / count[full], actual[full] / count[full], "o-", color=BLUE, label="films, mean of a bin")
        above.set(ylabel="films with pneumothorax (share of the bin)", xlim=(0, 1), ylim=(-0.03, 1.03))
        error = expected_calibration_error(films.positive, films.probability)
        above.set_title(f"Reliability of the image probability, ECE {_told(error)}")
        above.legend(loc="upper left")
        bars = below.bar(middles, count, 0.9 / len(count), color=SKY)
        below.bar_label(bars, padding=2)
        below.set(xlabel="image probability", ylabel="films (number)", ylim=(0, max(1, *count) * 1.25))
        below.set_xticks(np.linspace(0, 1, len(count) + 1))


def dice_against_area(scored: Sequence[ScoredFilm], path: Path) -> None:
    """Native Dice of each film with pneumothorax against its area; missed ones are crosses at 0."""
    positives = [f for f in scored if f.positive]
    with _figure(path) as figure:
        axes = figure.subplots()
        kinds = ((True, "o", BLUE, 0.55, "found"), (False, "x", VERMILION, 1.0, "missed (no answer)"))
        for found, marker, colour, alpha, words in kinds:
            films = [f for f in positives if f.called_positive == found]
            x, y = [f.area_fraction for f in films], [f.native.dice for f in films]
            look: dict[str, Any] = {"c": colour, "marker": marker, "alpha": alpha}
            axes.scatter(x, y, 42, clip_on=False, label=f"{words}: {len(films)}", zorder=3, **look)
        areas = [f.area_fraction for f in positives]
        axes.set(xscale="log", xlabel="area of the pneumothorax (share of the film)", ylabel="Dice on the native matrix")
        axes.set(xlim=(min(USUAL_AREAS[0], *areas, 1), max(USUAL_AREAS[1], *areas, 0)), ylim=(0, 1))
        axes.set_title(f"Dice against size, {len(positives)} films with pneumothorax")
        axes.xaxis.set_major_formatter(_percent)
        axes.xaxis.set_minor_formatter(lambda x, _: "")
        axes.legend(loc="lower right")


def roc(scored: Sequence[ScoredFilm], path: Path, operating: tuple[float, float] | None) -> None:
    """ROC curve of the image probability. `operating`: (sensitivity, specificity) of the answers, which need not lie on the
    curve because a positive answer also needs a mask."""
    films = Table.of(scored)
    area = auroc(films.positive, films.probability)
    with _figure(path) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], "--", color=GREY, label="chance")
        if area is not None:
            hits, alarms = ranked(films.positive, films.probability)
            x, y = np.append(0, alarms) / alarms[-1], np.append(0, hits) / hits[-1]
            axes.plot(
                x,
                y,
                color=BLUE,
                lw=2.5,
                clip_on=False,
                zorder=3,
                label=f"{hits[-1]} films with, {alarms[-1]} without pneumothorax",
            )
        if operating is not None:
            words = "operating point: sensitivity {:.3f}, specificity {:.3f}".format(*operating)
            axes.plot(1 - operating[1], operating[0], "D", color=VERMILION, ms=10, clip_on=False, zorder=3, label=words)
        axes.set(xlabel="1 - specificity (share of films without pneumothorax)", xlim=(0, 1), ylim=(0, 1))
        axes.set(ylabel="sensitivity (share of films with pneumothorax)")
        axes.set_title(f"ROC of the image probability, AUROC {_told(area)}")
        axes.legend(loc="lower right")


def threshold_curve(rows: Sequence[Mapping[str, float | None]], path: Path, chosen: Mapping[str, float]) -> None:
    """The figures of CURVES against "image_threshold", one row per threshold; `chosen`: name -> threshold, as vertical
    lines."""
    rows = sorted(rows, key=lambda row: row["image_threshold"] or 0)
    x = _column(rows, "image_threshold")
    with _figure(path) as figure:
        axes = figure.subplots()
        for name, colour, dash in zip(CURVES, CYCLE, DASHES, strict=False):
            axes.plot(x, _column(rows, name), dash, color=colour, lw=2, label=name)
        axes.set(xlabel="image threshold (probability)", ylabel="figure (share, or mean Dice)", xlim=(0, 1), ylim=(0, 1.02))
        _verticals(axes, chosen)
        figure.suptitle("Figures against the image threshold")
        figure.legend(loc="outside lower center", ncols=len(CURVES))


def losses(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The course of a training. `rows`: of metrics.csv, one per epoch, values as numbers or text; an empty cell is a gap.

    Above, every column named "loss..." or "...loss"; below, every figure of `train.report.metrics`, with or without the prefix
    "validation_" or "val_". Other columns are left out. The x axis counts rows, because "epoch" begins anew with each stage; a
    grey vertical line marks a new "stage".
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    parts = ([n for n in names if n.startswith("loss") or n.endswith("loss")], [n for n in names if _bare(n) in FIGURES])
    epoch, stage = np.arange(1, len(rows) + 1), [row.get("stage") for row in rows]
    with _figure(path) as figure:
        both = figure.subplots(2, 1, sharex=True)
        for axes, columns in zip(both, parts, strict=True):
            for i, name in enumerate(columns):
                y = _column(rows, name)
                known = ~np.isnan(y)  # a line over the gaps: validation need not follow every epoch
                colour, dash = CYCLE[i % len(CYCLE)], DASHES[i % len(DASHES)]
                axes.plot(epoch[known], y[known], dash, marker=".", color=colour, label=name)
            for i in (i for i in range(1, len(rows)) if stage[i] != stage[i - 1]):
                axes.axvline(i + 0.5, color=GREY, lw=1)
            if columns:
                axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        both[0].set(ylabel="loss", title="Training; grey: a new stage" if len(set(stage)) > 1 else "Training")
        both[1].set(xlabel="epochs done", ylabel="validation (share, or mean Dice)", ylim=(0, 1.02))
        both[1].xaxis.get_major_locator().set_params(integer=True)


def contact_sheet(tiles: Sequence[Tile], path: Path, columns: int = 4, tile: int = 256) -> None:
    """Films side by side, the truth outlined in green and the prediction in red, each with its caption below.

    Films keep their proportions: the longer side fills the tile of `tile` px, the rest is black. Tiles are GAP px apart. Raises
    OSError when `path` cannot be written.
    """
    step = tile + GAP, tile + _caption_height(tile) + GAP  # across, down
    rows = max(1, -(-len(tiles) // columns))
    sheet = np.full((rows * step[1] + GAP, columns * step[0] + GAP, 3), GAP_GREY, np.uint8)
    for i, (image, truth, answer, words) in enumerate(tiles):
        top, left = i // columns * step[1] + GAP, i % columns * step[0] + GAP
        cell = np.concatenate([_letterboxed(image, truth, answer, tile), _caption(words, tile)])
        sheet[top : top + cell.shape[0], left : left + tile] = cell
    done, data = cv2.imencode(".png", sheet[:, :, ::-1])
    if not done:
        raise OSError("the contact sheet could not be encoded")
    Path(path).write_bytes(data.tobytes())


def _letterboxed(image: np.ndarray, truth: np.ndarray, answer: np.ndarray, tile: int) -> NDArray[np.uint8]:
    """(tile, tile, 3) uint8 RGB."""
    height, width = image.shape
    scale = tile / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    grey = np.rint(small.clip(0, 1) * 255).astype(np.uint8)
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    draw_outline(picture, truth, TRUTH)
    draw_outline(picture, answer, FOUND)
    canvas = np.zeros((tile, tile, 3), np.uint8)
    top, left = (tile - size[1]) // 2, (tile - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = picture
    return canvas


def _caption_height(tile: int) -> int:
    return max(16, tile // 10)


def _caption(words: str, tile: int) -> NDArray[np.uint8]:
    """(h, tile, 3) uint8: one line of white on dark grey, smaller when it is long, shortened when it is too long to be read."""
    strip = np.full((_caption_height(tile), tile, 3), 32, np.uint8)
    words = words.encode("ascii", "replace").decode()  # OpenCV has no other letters
    size = max(0.4, min(0.5, 0.5 * (tile - 8) / max(1, _wide(words, 0.5))))
    while _wide(words, size) > tile - 8 and len(words) > 2:
        words = words[:-3] + ".."
    cv2.putText(strip, words, (4, strip.shape[0] - 8), cv2.FONT_HERSHEY_SIMPLEX, size, (235, 235, 235), 1, cv2.LINE_AA)
    return strip


def _wide(words: str, size: float) -> int:
    """px"""
    return int(cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])


@contextmanager
def _figure(path: Path) -> Iterator[Figure]:
    """An empty figure of 900 x 700 px; written to `path` when it is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    figure.savefig(path, format="png", metadata={"Software": None})  # the same films give the same bytes


def _verticals(axes: Axes, at: Mapping[str, float]) -> None:
    """Vertical lines, extended above the frame to their labels. The leftmost is highest, so that no line crosses the label of
    another."""
    for i, (name, x) in enumerate(sorted(at.items(), key=lambda item: item[1])):
        top = 1 + 0.04 * (len(at) - i)
        axes.axvline(x, 0, top, color=GREY, lw=1.5, ls=(0, (4, 2)), clip_on=False)
        axes.annotate(f"{name} {x:.3g}", (x, top), (4, 0), ("data", "axes fraction"), "offset points", va="top")


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """(rows,) float, NaN for an empty cell."""
    return np.array([math.nan if row.get(name) in (None, "", "None") else float(row[name]) for row in rows], float)


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _percent(x: float, _: object = None) -> str:
    return f"{100 * x:g} %"


def _told(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
