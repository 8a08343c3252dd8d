"""The body of a phantom: outlines in centimetres, and from them maps of the soft tissue and bone that a ray crosses.

Coordinates: x to the right of the picture, y down, origin in the middle of the chest, centimetres. Lungs are
described in their own frame, in which x points away from the midline (`side` -1 = left of the picture, +1 = right).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

SUBPIXEL = 4  # bits of fraction in the coordinates handed to OpenCV
HILUM = (4.3, 0.0)  # of a lung, in its own frame; the collapsing lung shrinks towards it

Box = tuple[slice, slice]  # rows and columns of a canvas


@dataclass(frozen=True)
class Body:
    """One patient with his position before the film. Lengths in cm."""

    half_width: float  # of the inside of the rib cage
    apex: float  # y of the lung apices (negative)
    domes: tuple[float, float]  # y of the diaphragm domes, left and right of the picture
    heart: float  # 1 = usual width
    wall: float  # soft tissue outside the ribs, at the side
    depth: float  # front to back, in the middle
    breast: float  # thickness of breast tissue, 0 without
    shift: float  # of the mediastinum, by rotation about the long axis
    scapula: float  # how far the scapulae reach over the lungs, 0 = not at all
    lung_density: float  # soft tissue per cm of lung
    supine: bool
    emphysema: bool


def draw_body(rng: np.random.Generator) -> Body:
    """A random patient."""
    supine, emphysema = rng.random() < 0.3, rng.random() < 0.16
    build = rng.normal()  # slender to obese
    dome = (6.8 if supine else 9.0) + (1.6 if emphysema else 0) + rng.normal(0, 0.9)
    return Body(
        half_width=float(np.clip(12.9 + 0.35 * build + rng.normal(0, 0.6) + 0.5 * emphysema, 11, 15)),
        apex=-13.2 + rng.normal(0, 0.5),
        domes=(dome - 0.6 + rng.normal(0, 0.35), dome + 0.5 + rng.normal(0, 0.35)),
        heart=float(np.clip((1.12 if supine else 0.98) - 0.1 * emphysema + rng.normal(0, 0.09), 0.75, 1.4)),
        wall=float(np.clip(2.4 + 0.9 * build + rng.normal(0, 0.3), 1.2, 6)),
        depth=float(np.clip(21 + 2.6 * build + rng.normal(0, 0.7), 17, 30)),
        breast=float(max(0, rng.normal(0.5, 1.6))),
        shift=rng.normal(0, 0.6),
        scapula=float(np.clip(rng.normal(1.2 if supine else 0.2, 0.8), 0, 3)),
        lung_density=(0.17 if emphysema else 0.26) + rng.normal(0, 0.02),
        supine=supine,
        emphysema=emphysema,
    )


@dataclass(frozen=True)
class Canvas:
    """The pixel grid over the body. Every size of the same film has the same geometry."""

    shape: tuple[int, int]
    px_per_cm: float
    centre: tuple[float, float]  # cm, the body point in the middle of the film
    angle: float  # radians, the film against the body

    def to_px(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) cm -> (N, 2) pixels as x, y, pixel centres at integers."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        moved = (np.asarray(points, float) - self.centre) @ np.array([[c, s], [-s, c]])
        return moved * self.px_per_cm + [(self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2]

    def xy(self) -> tuple[np.ndarray, np.ndarray]:
        """Body coordinates of every pixel, two (H, W) float32 arrays in cm."""
        h, w = self.shape
        px = (np.arange(w, dtype=np.float32) - (w - 1) / 2) / self.px_per_cm
        py = (np.arange(h, dtype=np.float32)[:, None] - (h - 1) / 2) / self.px_per_cm
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return c * px + s * py + np.float32(self.centre[0]), -s * px + c * py + np.float32(self.centre[1])

    def fill(self, points: np.ndarray, box: Box | None = None) -> np.ndarray:
        """The polygon of `points` (N, 2) cm as float32 coverage in [0, 1], (H, W), or the part of it in `box`."""
        rows, columns = box or (slice(0, self.shape[0]), slice(0, self.shape[1]))
        out = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        if out.size:
            corner = np.array([columns.start, rows.start], np.int32) << SUBPIXEL
            cv2.fillPoly(out, [self._fixed(points) - corner], 255, cv2.LINE_AA, SUBPIXEL)
        return out.astype(np.float32) / 255

    def box(self, points: np.ndarray) -> Box:
        """Rows and columns of all pixels that the polygon of `points` (N, 2) cm can touch."""
        px = self.to_px(points)
        (left, top), (right, bottom) = np.floor(px.min(0)).astype(int) - 2, np.ceil(px.max(0)).astype(int) + 3
        height, width = self.shape
        top, left = min(max(int(top), 0), height), min(max(int(left), 0), width)
        return slice(top, max(min(int(bottom), height), top)), slice(left, max(min(int(right), width), left))

    def line(
        self, out: np.ndarray, points: np.ndarray, width_cm: float, value: float, closed: bool = False
    ) -> None:
        """Draw a line of `points` (N, 2) cm into a uint8 canvas (H, W). A line thinner than a pixel is drawn paler instead."""
        self._polyline(out, self._fixed(points), width_cm, value, closed)

    def lines(self, out: np.ndarray, lines: np.ndarray, widths_cm: list[float], values: list[float]) -> None:
        """Draw many open lines, (N, points, 2) cm, one after the other."""
        fixed = self._fixed(lines.reshape(-1, 2)).reshape(lines.shape)
        for one, width_cm, value in zip(fixed, widths_cm, values, strict=True):
            self._polyline(out, one, width_cm, value, False)

    def _polyline(self, out: np.ndarray, fixed: np.ndarray, width_cm: float, value: float, closed: bool) -> None:
        px = width_cm * self.px_per_cm
        paled = min(max(round(value * min(px, 1.0)), 0), 255)
        cv2.polylines(out, [fixed], closed, paled, max(1, round(px)), cv2.LINE_AA, SUBPIXEL)

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        return np.round(self.to_px(points) * (1 << SUBPIXEL)).astype(np.int32)


def curve(points: list[tuple[float, float]], n: int = 60, closed: bool = False) -> np.ndarray:
    """A smooth line through the points, (n, 2)."""
    p = np.asarray(points + points[:1] if closed else points, float)
    t = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(p, axis=0).T))])
    return CubicSpline(t, p, bc_type="periodic" if closed else "natural")(np.linspace(0, t[-1], n))


def blob(x: float, y: float, rx: float, ry: float, n: int = 40) -> np.ndarray:
    """An ellipse around (x, y) with the radii rx and ry, (n, 2)."""
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + rx * np.cos(a), y + ry * np.sin(a)], 1)


def lung_outline(body: Body, side: int) -> np.ndarray:
    """Closed outline (N, 2) of one lung in its own frame: apex, chest wall, costophrenic angle, dome,
    mediastinum."""
    w, a, dome = body.half_width, body.apex, body.domes[(side + 1) // 2]
    k, sulcus = w / 13, dome + (1.7 if body.emphysema else 3.0)
    wall = curve(
        [
            (2.2, a + 3.6),
            (2.9, a + 1.1),
            (5.2 * k, a),
            (8.2 * k, a + 1.2),
            (10.6 * k, a + 4.2),
            (11.9 * k, a + 8.2),
            (12.7 * k, a + 13.5),
            (w, a + 18.5),
            (w * 0.985, sulcus),
        ],
        140,
    )
    base = curve(
        [
            (w * 0.985, sulcus),
            (w * 0.88, dome + 0.95),
            (w * 0.62, dome),
            (w * 0.38, dome + 0.1),
            (1.7, dome + 1.7),
        ],
        60,
    )
    return np.concatenate([wall, base[1:], [(1.7, 2.0), (1.8, -5.0)]])


def placed(points: np.ndarray, side: int) -> np.ndarray:
    """From a lung's own frame to body coordinates."""
    return np.asarray(points) * [side, 1]


def mediastinum_outline(body: Body) -> np.ndarray:
    """Closed outline (N, 2) of heart and great vessels in body coordinates, cm."""
    h, s, low = body.heart, body.shift, max(body.domes) + 3
    wide = 1.25 if body.supine else 1.0
    left = [
        (-2.1 * wide, -19),
        (-2.3 * wide, -12),
        (-2.6 * wide, -8),
        (-2.7 * wide, -4),
        (-3.1 * h, -0.5),
        (-4.2 * h, 3.5),
        (-4.2 * h, 6.5),
        (-3.2, low),
    ]
    right = [
        (7.5 * h, low),
        (8.6 * h, 8.5),
        (7.9 * h, 5.3),
        (6.0 * h, 1.9),
        (4.2, -1.2),
        (3.4, -3.0),
        (3.7 * wide, -5.2),
        (3.5 * wide, -6.6),
        (2.3 * wide, -8.4),
        (2.1 * wide, -12),
        (2.1 * wide, -19),
    ]
    return curve([(x + s, y) for x, y in left + right], 160, closed=True)


def domed(coverage: np.ndarray, px_per_cm: float, reach: float) -> np.ndarray:
    """A round profile (H, W) over a flat region: 0 at its edge, 1 from `reach` cm inwards, because bodies and lungs are
    round."""
    distance = cv2.distanceTransform((coverage > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / (px_per_cm * reach)
    inward = np.clip(distance, 0, 1)
    return cv2.GaussianBlur(
        np.sqrt(np.maximum(inward * (2 - inward), 0)), (0, 0), 1.0
    )  # smooths the pixel staircase


def tissue(body: Body, canvas: Canvas) -> np.ndarray:
    """(H, W) float32 cm of soft tissue, the lungs not yet taken out."""
    w, wall, low = body.half_width, body.wall, 30.0
    half = [
        (6.0 + 0.3 * wall, -30),
        (6.3 + 0.3 * wall, -18.5),
        (9.0 + 0.4 * wall, -16.6),
        (16.5, -15.2),
        (20.5, -12.5),
        (19.5, -7),
        (w + wall + 2.2, -3.5),
        (w + wall + 0.4, 1),
        (w + wall, 8),
        (w + wall + 0.3, low),
    ]
    line = curve(half, 120)
    total = body.depth * domed(
        canvas.fill(np.concatenate([line, placed(line[::-1], -1)])), canvas.px_per_cm, 6.5
    )
    for side in (-1, 1):
        arm = curve(
            [
                (17.5, -12.5),
                (20.8, -11.5),
                (22.6, -6),
                (23.6 + 0.3 * wall, 4),
                (25, 18),
                (18.6 + wall, 18),
                (17.6, 4),
                (17, -4),
            ],
            60,
            closed=True,
        )
        total = np.maximum(total, 9.5 * domed(canvas.fill(placed(arm, side)), canvas.px_per_cm, 4.5))
        if body.breast > 0.3:
            breast = canvas.fill(placed(blob(w * 0.56, 6.5, 5.6, 4.6 + 0.3 * body.breast), side))
            total += body.breast * domed(breast, canvas.px_per_cm, 4.0)
    return total


def bones(body: Body, canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 cm of bone: ribs as tilted arcs, clavicles, scapulae, spine, humeral heads."""
    out = np.zeros(canvas.shape, np.float32)
    strength = rng.uniform(0.75, 1.25)
    drop, spacing = rng.uniform(7.5, 10.5), (max(body.domes) + 4 - body.apex) / 10.4
    for side in (-1, 1):
        for i in range(11):
            reach = body.half_width + 0.35 - 5.6 * np.exp(-i / 1.15) - 0.25 * max(0, i - 8)
            theta = np.radians(np.linspace(9, 152 if i < 8 else 105, 70))
            fall = drop * (0.55 + 0.45 * min(i / 3, 1)) + rng.normal(0, 0.15)
            x = reach * np.sin(theta) ** 0.9
            y = (
                body.apex
                - 0.2
                + spacing * i * 0.98
                + fall * (1 - np.cos(theta)) / 2
                - 0.8 * np.sin(theta * 2).clip(0)
            )
            width = 1.0 + 0.25 * np.sin(theta) * (i > 0) + 0.25 * (theta > 1.9)
            weight = np.where(theta < 1.75, 0.46, 0.24) * (
                0.6 if i > 7 else 1
            )  # in front, ribs end in cartilage
            for first, last in ((0, 37), (36, 70)):
                _add_tube(
                    out,
                    strength,
                    canvas,
                    placed(np.stack([x, y], 1), side)[first:last],
                    width[first:last],
                    float(weight[first]),
                )
        lift = rng.normal(0, 0.7)
        clavicle = curve(
            [
                (1.9, -10.6),
                (5.0, -11.3),
                (9.5, -13.2 - lift * 0.6),
                (14.5, -14.2 - lift),
                (17.3, -13.9 - lift),
            ],
            50,
        )
        _add_tube(out, strength, canvas, placed(clavicle, side), np.linspace(1.7, 1.1, 50), 0.6)
        edge = 13.2 - body.scapula
        blade = curve(
            [
                (edge + 0.3, -11),
                (edge, -6),
                (edge + 1.5, -0.5),
                (edge + 2.6, -1),
                (16.6, -8),
                (17.6, -11),
                (15, -12.6),
            ],
            60,
            closed=True,
        )
        filled = canvas.fill(placed(blade, side))
        out += strength * (0.26 * filled + 0.25 * (filled - domed(filled, canvas.px_per_cm, 0.35)).clip(0))
        out += (
            strength
            * 1.7
            * domed(canvas.fill(placed(blob(18.6, -11.2, 2.5, 2.6), side)), canvas.px_per_cm, 2.4)
        )
        shaft = curve([(19.4, -11), (21.3, 0), (22.6, 12)], 20)
        _add_tube(out, strength, canvas, placed(shaft, side), np.full(20, 2.2), 0.7)
    return out + strength * _spine(canvas, rng)


def _add_tube(
    out: np.ndarray, strength: float, canvas: Canvas, line: np.ndarray, width: np.ndarray, thickness: float
) -> None:
    """A bone with a dense rim: cortex outside, marrow inside."""
    along = np.gradient(line, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.hypot(*along.T)[:, None], 1e-6)
    outside, inside = (
        np.concatenate([line + half, (line - half)[::-1]])
        for half in (across * width[:, None] / 2 * share for share in (1.0, 0.72))
    )
    box = canvas.box(outside)
    bone = thickness * canvas.fill(outside, box) + -0.3 * thickness * canvas.fill(inside, box)
    out[box] += strength * bone


def _add(out: np.ndarray, thickness: float, canvas: Canvas, points: np.ndarray) -> None:
    box = canvas.box(points)
    out[box] += thickness * canvas.fill(points, box)


def _spine(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    out = np.zeros(canvas.shape, np.float32)
    y, bend = -24.0, rng.normal(0, 0.5)
    while y < 24:
        height, half = 1.95 + 0.02 * y, 1.75 + 0.012 * y
        x = bend * np.sin(y / 9)
        vertebra = curve(
            [
                (x - half, y),
                (x + half, y),
                (x + half * 0.9, y + height / 2),
                (x + half, y + height),
                (x - half, y + height),
                (x - half * 0.9, y + height / 2),
            ],
            40,
            closed=True,
        )
        _add(out, 0.62, canvas, vertebra)
        _add(out, 0.35, canvas, blob(x, y + height * 0.8, 0.35, 0.8))
        for side in (-1, 1):
            _add(out, 0.4, canvas, blob(x + side * half * 0.62, y + height * 0.45, 0.38, 0.5))
            _add(out, 0.25, canvas, blob(x + side * half * 1.4, y + height * 0.3, 1.1, 0.45))
        y += height + 0.42
    return cv2.GaussianBlur(out, (0, 0), max(0.08 * canvas.px_per_cm, 0.3))
