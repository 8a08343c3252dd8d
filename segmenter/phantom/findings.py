"""Findings of a phantom: a pneumothorax, and structures that are mistaken for one.

A pneumothorax shrinks a lung towards its hilum. In polar coordinates about the hilum the lung reaches to
R(angle); with air in the pleural space it reaches to R * (1 - collapse * bump(angle)), which gives a thin
convex line and a crescent of air.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from segmenter.phantom.anatomy import HILUM, Body, curve, lung_outline, placed

ANGLES = np.radians(np.linspace(-180, 180, 721))
COSTAL = np.radians([-112.0, 98.0])  # beyond these the lung borders the mediastinum, not the chest wall
SITES = {
    "apical": (-88.0, -52.0),
    "lateral": (-30.0, 22.0),
    "basal": (40.0, 58.0),
}  # degrees of the middle of the crescent
SITE_SHARES = (0.62, 0.28, 0.10)
# SIIM-ACR area fractions: 5 % .0013, 25 % .0039, 50 % .0082, 75 % .0175, 95 % .0437: log-normal(-4.80, 1.10)
LOG_AREA = (-4.80, 1.10)
AREA_RANGE = (0.0008, 0.15)
LEFT_OF_PICTURE = 0.59
COMPONENTS = (0.69, 0.20, 0.11)  # one, two, three


@dataclass(frozen=True)
class Pneumothorax:
    """Air beside a lung. `area` is in cm2 of the film; one crescent per component."""

    side: int  # -1 left of the picture
    site: str  # of the largest crescent
    area_cm2: float
    crescents: tuple[Crescent, ...]
    line_cm: float  # soft tissue that the pleural line adds


@dataclass(frozen=True)
class Crescent:
    """One region of air, in polar coordinates about the hilum."""

    centre: float  # radians
    above: float  # half width towards the apex, radians
    below: float  # half width towards the base
    collapse: float  # 0..1, at the centre

    def bump(self, angle: np.ndarray) -> np.ndarray:
        """The profile of the collapse, 0 to 1, at each angle in radians."""
        u = angle - self.centre
        u = np.where(u < 0, u / self.above, u / self.below)
        inside = np.clip(np.minimum(angle - COSTAL[0], COSTAL[1] - angle) / np.radians(14), 0, 1)
        return (
            np.where(np.abs(u) < 1, np.cos(np.clip(u, -1, 1) * np.pi / 2) ** 1.4, 0)
            * inside
            * inside
            * (3 - 2 * inside)
        )


class Lung:
    """One lung in polar coordinates about its hilum. `outline` and `border` are in its own frame, cm."""

    def __init__(self, body: Body, side: int) -> None:
        self.side, self.outline = side, lung_outline(body, side)
        offset = self.outline - HILUM
        angle, radius = np.arctan2(offset[:, 1], offset[:, 0]), np.hypot(*offset.T)
        order = np.argsort(angle)
        self.radius = np.interp(ANGLES, angle[order], radius[order], period=2 * np.pi)
        self.rounded = gaussian_filter1d(self.radius, 9 / np.degrees(ANGLES[1] - ANGLES[0]), mode="wrap")

    def kept(self, crescents: Iterable[Crescent]) -> np.ndarray:
        """Share of its radius that the lung keeps at each of ANGLES, 1 = all. Where it is off the chest wall its corners are
        rounded."""
        radius, share = self.radius, np.ones_like(ANGLES)
        for c in crescents:
            bump = c.bump(ANGLES)
            radius = radius + (self.rounded - radius) * np.sqrt(bump)
            share = share * (1 - c.collapse * bump)
        return np.minimum(radius * share / self.radius, 1.0)

    def border(self, kept: np.ndarray, first: int = 0, last: int | None = None) -> np.ndarray:
        """Points of the lung's edge when it keeps the share `kept` of its radius at each of ANGLES."""
        r, a = (self.radius * kept)[first:last], ANGLES[first:last]
        return np.stack([HILUM[0] + r * np.cos(a), HILUM[1] + r * np.sin(a)], 1)

    def contains(self, x: float, y: float, share: float = 1.0) -> bool:
        """Whether a point in the lung's frame (cm) lies within `share` of the lung's radius."""
        dx, dy = x - HILUM[0], y - HILUM[1]
        at = (np.arctan2(dy, dx) + np.pi) / (2 * np.pi) * (len(ANGLES) - 1)
        return bool(np.hypot(dx, dy) < self.radius[round(at)] * share)

    def lost_area(self, kept: np.ndarray) -> float:
        """cm2 between chest wall and lung."""
        return float(0.5 * np.sum(self.radius[:-1] ** 2 * (1 - kept[:-1] ** 2)) * (ANGLES[1] - ANGLES[0]))


def draw_pneumothorax(
    rng: np.random.Generator, lungs: dict[int, Lung], film_cm2: float
) -> tuple[Pneumothorax, ...]:
    """One patient's pneumothorax; a second value when the other lung has one too."""
    fraction = float(np.clip(np.exp(rng.normal(*LOG_AREA)), *AREA_RANGE))
    side = -1 if rng.random() < LEFT_OF_PICTURE else 1
    sites = [str(s) for s in rng.choice(list(SITES), size=3, replace=False, p=SITE_SHARES)]
    n = int(rng.choice([1, 2, 3], p=COMPONENTS))
    both_sides = n > 1 and rng.random() < 0.35
    shares = {1: [1.0], 2: [0.7, 0.3], 3: [0.6, 0.25, 0.15]}[n]
    homes = [side, -side if both_sides else side, side][:n]
    line = float(rng.uniform(0.12, 0.42))
    found = []
    for home in dict.fromkeys(homes):
        parts = [
            (site, share) for site, share, where in zip(sites, shares, homes, strict=False) if where == home
        ]
        if home != side:
            parts = [(sites[0], parts[0][1])]
        area = fraction * film_cm2
        crescents = tuple(_crescent(rng, lungs[home], site, share * area) for site, share in parts)
        found.append(Pneumothorax(home, parts[0][0], area * sum(s for _, s in parts), crescents, line))
    return tuple(found)


def _crescent(rng: np.random.Generator, lung: Lung, site: str, area_cm2: float) -> Crescent:
    """A crescent at `site` with this area, widened until the lung collapses by at most two thirds."""
    centre = np.radians(rng.uniform(*SITES[site]))
    wide = np.clip((area_cm2 / 11) ** 0.33, 0.45, 1.8) * np.radians(26 if site == "basal" else 40)
    above, below = wide * rng.uniform(0.7, 1.3), wide * rng.uniform(0.7, 1.6 if site == "apical" else 1.3)
    for _ in range(8):
        low, high = 0.0, 0.68
        for _ in range(24):
            middle = (low + high) / 2
            crescent = Crescent(centre, above, below, middle)
            low, high = (middle, high) if lung.lost_area(lung.kept([crescent])) < area_cm2 else (low, middle)
        if low < 0.67:
            break
        above, below = above * 1.25, below * 1.25
    return crescent


def vessels(rng: np.random.Generator, lung: Lung, fullness: float) -> list[tuple[np.ndarray, float]]:
    """Segments ((2, 2) cm in the lung's frame, diameter cm) branching from the hilum and tapering towards the
    pleura."""
    out: list[tuple[np.ndarray, float]] = []
    heads = np.radians([-125, -100, -78, -55, -30, -8, 14, 36, 56, 74, 92, 118])
    buds = [
        (
            HILUM[0] - 0.9 + rng.normal(0, 0.5),
            HILUM[1] + rng.normal(0, 1.0),
            a + rng.normal(0, 0.14),
            rng.uniform(0.26, 0.50) * (0.85 + 0.3 * (a > 0)) * fullness,
        )
        for a in heads
        for _ in range(2)
    ]
    while buds and len(out) < 800:
        x, y, angle, width = buds.pop(0)
        bend = rng.normal(0, 0.035)
        while width > 0.05:
            step = 0.55 + 0.6 * width
            nx, ny = x + step * np.cos(angle), y + step * np.sin(angle)
            if not lung.contains(nx, ny, 0.985):
                break
            out.append((np.array([(x, y), (nx, ny)]), width))
            x, y, width = nx, ny, width * 0.94
            angle += bend + rng.normal(0, 0.11)
            if rng.random() < 0.26:
                turn = rng.choice([-1, 1]) * rng.uniform(0.35, 0.95)
                buds.append((x, y, angle + turn, width * rng.uniform(0.55, 0.8)))
                width *= 0.9
    return sorted(out, key=lambda s: s[1])


def tube_path(rng: np.random.Generator, body: Body) -> tuple[int, np.ndarray]:
    """A chest drain: through the lateral wall, then up (or down) inside the chest. Body coordinates."""
    side = int(rng.choice([-1, 1]))
    w, y = body.half_width, rng.uniform(1, 6)
    end_y = rng.uniform(-11.5, -5) if rng.random() < 0.75 else rng.uniform(4, 7)
    points = [
        (w + 9, y + rng.uniform(-1, 5)),
        (w + 1.5, y + 0.6),
        (w - 2.0, y - 1.0),
        (w * 0.68, (y + end_y) / 2),
        (rng.uniform(3.5, 7.5), end_y),
    ]
    return side, placed(curve(points, 70), side)


def folds(rng: np.random.Generator, body: Body) -> Iterator[tuple[int, np.ndarray]]:
    """Skin folds: nearly straight edges that continue over ribs and out of the chest."""
    for side in rng.permutation([-1, 1])[: 1 + (rng.random() < 0.3)]:
        x, lean = body.half_width * rng.uniform(0.5, 0.95), rng.uniform(-0.35, 0.25)
        top, end, bow = rng.uniform(-13, -6), rng.uniform(3, 15), rng.normal(0, 0.9)
        points = [
            (x + lean * (y - top) + bow * np.sin((y - top) / (end - top) * np.pi), y)
            for y in np.linspace(top, end, 6)
        ]
        yield int(side), placed(curve([(float(a), float(b)) for a, b in points], 60), int(side))
