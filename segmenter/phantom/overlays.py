"""Objects and shadows over the body: drains, catheters, leads, companion shadows, letters, collimator blades."""

from __future__ import annotations

import cv2
import numpy as np

from segmenter.phantom.anatomy import Body, Canvas, blob, curve, placed
from segmenter.phantom.findings import tube_path

FULL = 2.0  # attenuation of the value 255


def devices(
    stream: dict[str, np.random.Generator], body: Body, canvas: Canvas, present: frozenset[str]
) -> np.ndarray:
    """(H, W) float32 attenuation of everything that is drawn as a line."""
    layers = []
    for name, draw in (
        ("companion shadow", _companions),
        ("tube", _tube),
        ("line", _catheters),
        ("ECG leads", _leads),
    ):
        if name in present:
            layer = np.zeros(canvas.shape, np.uint8)
            draw(stream[name], body, canvas, layer)
            layers.append(cv2.GaussianBlur(layer, (0, 0), max(0.02 * canvas.px_per_cm, 0.3)))
    return sum(
        (layer.astype(np.float32) * (FULL / 255) for layer in layers), np.zeros(canvas.shape, np.float32)
    )


def _tone(attenuation: float) -> float:
    return 255 * attenuation / FULL


def _companions(rng: np.random.Generator, body: Body, canvas: Canvas, out: np.ndarray) -> None:
    """Soft tissue along the lower edge of the upper ribs and the clavicle: a line that stays parallel to
    bone."""
    for side in (-1, 1):
        w, a, dip = body.half_width / 13, body.apex, rng.uniform(0.5, 1.0)
        apex = curve(
            [
                (3.6, a + 1.6 + dip),
                (5.2 * w, a + 0.5 + dip),
                (7.3 * w, a + 1.7 + dip),
                (9.0 * w, a + 4.0 + dip),
            ],
            40,
        )
        collar = curve([(3.5, -10.0 + dip * 0.4), (6.5, -11.0), (10.5, -12.6)], 40)
        for line in (apex, collar):
            if rng.random() < 0.75:
                canvas.line(out, placed(line, side), rng.uniform(0.10, 0.22), _tone(rng.uniform(0.05, 0.11)))


def _tube(rng: np.random.Generator, body: Body, canvas: Canvas, out: np.ndarray) -> None:
    side, path = tube_path(rng, body)
    width = rng.uniform(0.55, 0.95)
    canvas.line(out, path, width, _tone(0.28))
    canvas.line(out, path, width * 0.66, _tone(0.12))
    canvas.line(out, path + np.array([0.18 * width * side, 0.1 * width]), 0.10, _tone(0.7))


def _catheters(rng: np.random.Generator, body: Body, canvas: Canvas, out: np.ndarray) -> None:
    """A central line from neck or clavicle to the vena cava; sometimes tubes in trachea and oesophagus."""
    tip = (-2.1 + rng.normal(0, 0.3), rng.uniform(-4, 1))
    side = int(rng.choice([-1, 1]))
    start = (
        [(4.5 * side, -20.0), (3.0 * side, -15.0)]
        if rng.random() < 0.5
        else [(14.0 * side, -10.5), (8.0 * side, -11.5)]
    )
    canvas.line(
        out,
        curve([*start, (1.2 * side - 0.4, -9.5), (-1.9, -6.5), tip], 60),
        0.2,
        _tone(rng.uniform(0.2, 0.45)),
    )
    if rng.random() < 0.5:
        canvas.line(out, curve([(0.3, -26), (0.1, -16), (0.1, -7.5)], 30), 0.14, _tone(0.5))
    if rng.random() < 0.5:
        canvas.line(
            out, curve([(-0.4, -26), (0.5, -10), (1.2, 4), (4.0, 12), (6.5, 15)], 60), 0.22, _tone(0.4)
        )


def _leads(rng: np.random.Generator, body: Body, canvas: Canvas, out: np.ndarray) -> None:
    for _ in range(rng.integers(2, 5)):
        x, y = float(rng.uniform(-12, 12)), float(rng.uniform(-11, 9))
        exit_x, exit_y = x + float(rng.normal(0, 7)), 24.0
        middle = (float((x + exit_x) / 2 + rng.normal(0, 3.5)), (y + exit_y) / 2)
        canvas.line(
            out,
            curve([(x, y), (x + float(rng.normal(0, 2)), y + 3), middle, (exit_x, exit_y)], 70),
            0.16,
            _tone(rng.uniform(0.2, 0.55)),
        )
        canvas.line(out, blob(x, y, 0.75, 0.75), 0.14, _tone(0.4), closed=True)
        canvas.line(out, blob(x, y, 0.2, 0.2), 0.4, _tone(1.5), closed=True)


def letters(
    rng: np.random.Generator, image: np.ndarray, canvas: Canvas, present: frozenset[str]
) -> np.ndarray:
    """A lead marker near an upper corner: L on the patient's left, which is right of the picture."""
    if "letters" not in present:
        return image
    left = rng.random() < 0.6
    h, w = image.shape
    scale, grey = canvas.px_per_cm * rng.uniform(0.05, 0.09), float(rng.uniform(0.75, 1.0))
    at = (
        int(w * rng.uniform(0.84, 0.9) if left else w * rng.uniform(0.04, 0.09)),
        int(h * rng.uniform(0.09, 0.24)),
    )
    layer = np.zeros(image.shape, np.uint8)
    cv2.putText(
        layer,
        "L" if left else "R",
        at,
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        255,
        max(1, round(scale * 3)),
        cv2.LINE_AA,
    )
    if rng.random() < 0.5:
        low = (at[0], at[1] + int(0.8 * canvas.px_per_cm))
        cv2.putText(
            layer,
            str(rng.choice(["PORT", "AP", "ERECT", "SUPINE", "KMB"])),
            low,
            cv2.FONT_HERSHEY_SIMPLEX,
            scale * 0.35,
            230,
            max(1, round(scale)),
            cv2.LINE_AA,
        )
    share = layer.astype(np.float32) / 255
    return image * (1 - share) + grey * share


def collimate(
    rng: np.random.Generator, image: np.ndarray, present: frozenset[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The film behind the collimator blades, and (H, W) bool where the field is open."""
    field = np.ones(image.shape, bool)
    if "collimation" not in present:
        return image, field
    h, w = image.shape
    edges = rng.uniform(0.01, 0.055, 4) * (rng.random(4) < 0.7)
    field[: int(edges[0] * h)], field[h - int(edges[1] * h) :] = False, False
    field[:, : int(edges[2] * w)], field[:, w - int(edges[3] * w) :] = False, False
    behind = 0.0 if rng.random() < 0.6 else float(rng.uniform(0.8, 1.0))  # a shutter, or unexposed film
    return np.where(field, image, np.float32(behind)), field
