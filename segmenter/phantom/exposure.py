"""From a body to a film: thickness maps, the lines drawn over them, attenuation (Beer-Lambert), scatter, noise, blur and
window.

Maps are (H, W) float32 in cm of tissue or, multiplied by a coefficient, in units of attenuation (-log of intensity).
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from segmenter.phantom.anatomy import Body, Canvas, blob, bones, domed, mediastinum_outline, placed, tissue
from segmenter.phantom.findings import ANGLES, HILUM, Lung, Pneumothorax, folds, vessels
from segmenter.phantom.overlays import collimate, devices, letters

WORKING_PX = 640  # soft shadows have no detail beyond this; lines, vessels and noise are drawn at full size
SOFT, BONE = 0.19, 0.52  # attenuation per cm, about 70 keV effective
BLOOD = 0.45  # per cm; more than tissue, because real vessels are seen through less than a whole lung
THIN_CM = 0.18  # a thinner layer of air is neither drawn nor in the truth

Streams = dict[str, np.random.Generator]


def expose(
    stream: Streams,
    body: Body,
    lungs: dict[int, Lung],
    air: tuple[Pneumothorax, ...],
    canvas: Canvas,
    present: frozenset[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W) float32 in [0, 1] and truth (H, W) bool."""
    coarse = _coarse(canvas)
    heart = _mediastinum(body, coarse)
    solid = (
        tissue(body, coarse)
        - _gas(stream["gas"], body, coarse)
        + _opacities(stream["opacity"], body, coarse, present)
    )
    fixed = BONE * bones(body, coarse, stream["bones"]) + SOFT * _folds(stream["fold"], body, coarse, present)
    texture = _texture(stream["texture"], coarse)
    bullae = _bullae(stream["bulla"], lungs, coarse, present)
    healthy, inside = _lungs(body, lungs, (), coarse, heart, texture, bullae)
    sick, visible = _lungs(body, lungs, air, coarse, heart, texture, bullae) if air else (healthy, inside)

    # scatter and window are those of the film without pneumothorax, so that the films of a pair differ in the air only
    base = SOFT * (solid - healthy).clip(0.3 * (solid > 0.3)) + fixed
    scatter = _scatter(stream["setting"], base, coarse)
    window = _window(stream["window"], -np.log(np.exp(-base) + scatter), inside > 0.5, solid > 3)

    depth = _grown(SOFT * (solid - sick).clip(0.3 * (solid > 0.3)) + fixed, canvas)
    depth += BLOOD * _vessels(stream["vessels"], body, lungs, canvas) * _grown(visible, canvas)
    depth += SOFT * _pleural_lines(lungs, air, bullae, canvas) + devices(stream, body, canvas, present)
    arrived = np.exp(-depth) + _grown(scatter, canvas)
    image = _develop(stream["noise"], stream["window"], arrived, canvas, window)
    image, open_field = collimate(
        stream["collimation"], letters(stream["letters"], image, canvas, present), present
    )
    return image, truth_of(lungs, air, body, canvas) & open_field


def truth_of(lungs: dict[int, Lung], air: tuple[Pneumothorax, ...], body: Body, canvas: Canvas) -> np.ndarray:
    """(H, W) bool: air between the pleural line and the chest wall, in front of the mediastinum left out."""
    out = np.zeros(canvas.shape, bool)
    for a in air:
        out |= _filled(canvas, lungs[a.side], 1.0) & ~_filled(canvas, lungs[a.side], _kept(lungs[a.side], a))
    return out & ~(canvas.fill(mediastinum_outline(body)) > 0.5) if air else out


def _coarse(canvas: Canvas) -> Canvas:
    shrink = min(1.0, WORKING_PX / max(canvas.shape))
    shape = (round(canvas.shape[0] * shrink), round(canvas.shape[1] * shrink))
    return replace(canvas, shape=shape, px_per_cm=canvas.px_per_cm * sum(shape) / sum(canvas.shape))


def _grown(image: np.ndarray, canvas: Canvas) -> np.ndarray:
    return cv2.resize(image.astype(np.float32), canvas.shape[::-1], interpolation=cv2.INTER_CUBIC)


def _kept(lung: Lung, air: Pneumothorax) -> np.ndarray:
    """Share of the radius the lung keeps at each of ANGLES; a layer thinner than THIN_CM counts as none."""
    kept = lung.kept(air.crescents)
    return np.where(lung.radius * (1 - kept) < THIN_CM, 1.0, kept)


def _filled(canvas: Canvas, lung: Lung, kept: np.ndarray | float) -> np.ndarray:
    return canvas.fill(placed(lung.border(np.broadcast_to(kept, ANGLES.shape)), lung.side)) > 0.5


def _mediastinum(body: Body, canvas: Canvas) -> np.ndarray:
    """cm of heart, great vessels and hila, front to back: lung they push aside."""
    c = canvas.px_per_cm
    out = (
        0.62
        * body.depth
        * domed(cv2.GaussianBlur(canvas.fill(mediastinum_outline(body)), (0, 0), 0.18 * c), c, 4.2)
    )
    x, y = canvas.xy()
    for side in (-1, 1):
        u, v = (x * side - HILUM[0] + 0.6) / 1.3, (y - HILUM[1] + 0.4) / 2.1
        out += 3.2 * np.exp(-(u * u + v * v))
    return cv2.GaussianBlur(out, (0, 0), 0.06 * c)


def _lungs(
    body: Body,
    lungs: dict[int, Lung],
    air: tuple[Pneumothorax, ...],
    canvas: Canvas,
    heart: np.ndarray,
    texture: np.ndarray,
    bullae: list[tuple[int, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """cm of air that rays cross, and where lung vessels can be seen (0..1), both (H, W) float32."""
    gas, visible = np.zeros(canvas.shape, np.float32), np.zeros(canvas.shape, np.float32)
    holes = sum((canvas.fill(placed(o, s)) for s, o in bullae), np.zeros(canvas.shape, np.float32))
    for side, lung in lungs.items():
        whole = canvas.fill(placed(lung.border(np.ones_like(ANGLES)), side))
        room = (0.70 * body.depth * domed(whole, canvas.px_per_cm, 5.0) - heart).clip(0)
        mine = [a for a in air if a.side == side]
        lung_part = canvas.fill(placed(lung.border(_kept(lung, mine[0])), side)) if mine else whole
        packed = np.sqrt(whole.sum() / max(lung_part.sum(), 1.0))  # a collapsed lung is denser
        density = body.lung_density * packed * lung_part * (1 + 0.16 * texture) * (1 - 0.8 * holes.clip(0, 1))
        gas += room * (1 - density)
        depth = cv2.distanceTransform((lung_part > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / canvas.px_per_cm
        visible = np.maximum(
            visible, lung_part * np.clip(depth / 0.8, 0, 1) ** 0.6 * (1 - 0.9 * holes.clip(0, 1))
        )
    return gas, visible * np.clip(1.15 - heart / (0.5 * body.depth), 0.25, 1)


def _gas(rng: np.random.Generator, body: Body, canvas: Canvas) -> np.ndarray:
    """cm of air in the trachea, the stomach and the bowel."""
    c, shift = canvas.px_per_cm, 0.4 * body.shift
    pipe = np.array(
        [
            (-0.85, -26),
            (0.85, -26),
            (0.9 + shift, -5.0),
            (3.0 + shift, -2.6),
            (2.6 + shift, -1.9),
            (shift, -3.6),
            (-2.4 + shift, -1.5),
            (-2.8 + shift, -2.3),
            (-0.9 + shift, -5.0),
        ]
    )
    out = 1.9 * domed(canvas.fill(pipe), c, 0.9)
    dome = body.domes[1]
    if rng.random() < 0.8:
        bubble = blob(
            rng.uniform(5.5, 8.5), dome + rng.uniform(2.2, 3.4), rng.uniform(1.6, 3.4), rng.uniform(0.9, 1.9)
        )
        out += rng.uniform(3, 6) * domed(canvas.fill(bubble), c, 1.5)
    for _ in range(rng.integers(0, 9)):
        loop = blob(
            rng.uniform(-9, 10), dome + rng.uniform(4.5, 13), rng.uniform(0.6, 2.2), rng.uniform(0.5, 1.5)
        )
        out += rng.uniform(1, 4) * domed(canvas.fill(loop), c, 1.2)
    return cv2.GaussianBlur(out, (0, 0), 0.12 * c)


def _opacities(rng: np.random.Generator, body: Body, canvas: Canvas, present: frozenset[str]) -> np.ndarray:
    """cm of fluid in the lung: patches, or an effusion over one dome."""
    out = np.zeros(canvas.shape, np.float32)
    if "opacity" not in present:
        return out
    x, y = canvas.xy()
    if rng.random() < 0.45:
        side, level = int(rng.choice([-1, 1])), rng.uniform(3, 8)
        rim = level - 2.2 * (x * side / body.half_width).clip(0, 1.2) ** 3
        return (
            rng.uniform(3, 8)
            / (1 + np.exp(-(y - rim) / 0.8))
            / (1 + np.exp(-(x * side - 3) / 0.8))
            / (1 + np.exp((y - 13) / 1.5))
        ).astype(np.float32)
    for _ in range(rng.integers(1, 6)):
        u, v = (
            (x - rng.choice([-1, 1]) * rng.uniform(4, 11)) / rng.uniform(0.6, 3),
            (y - rng.uniform(-8, 7)) / rng.uniform(0.6, 3),
        )
        out += rng.uniform(0.7, 4) * np.exp(-(u * u + v * v))
    return out


def _folds(rng: np.random.Generator, body: Body, canvas: Canvas, present: frozenset[str]) -> np.ndarray:
    """cm of skin: denser towards an edge and gone beyond it, over vessels and ribs alike."""
    out = np.zeros(canvas.shape, np.float32)
    if "skin fold" not in present:
        return out
    x, y = canvas.xy()
    for side, line in folds(rng, body):
        edge = np.interp(y, line[:, 1], line[:, 0] * side)
        beyond = x * side - edge
        ends = np.clip((y - line[0, 1]) / 2, 0, 1) * np.clip((line[-1, 1] - y) / 2, 0, 1)
        skin = rng.uniform(0.5, 1.3) * np.exp(np.minimum(beyond, 0) / rng.uniform(1.0, 3.0)) * (beyond < 0)
        out += ends * (skin - 0.12 * ((beyond > 0) & (beyond < 0.25)))
    return cv2.GaussianBlur(out, (0, 0), max(0.035 * canvas.px_per_cm, 0.3))


def _bullae(
    rng: np.random.Generator, lungs: dict[int, Lung], canvas: Canvas, present: frozenset[str]
) -> list[tuple[int, np.ndarray]]:
    """(side, outline in the lung's frame) of thin-walled holes: no vessels in them, but round and inside the
    lung."""
    found: list[tuple[int, np.ndarray]] = []
    for _ in range(rng.integers(1, 4) if "bulla" in present else 0):
        side, angle, share = (
            int(rng.choice([-1, 1])),
            np.radians(rng.uniform(-95, 20)),
            rng.uniform(0.55, 0.8),
        )
        radius = float(np.interp(angle, ANGLES, lungs[side].radius)) * share
        size = min(rng.uniform(0.9, 2.6), radius / share * (0.98 - share) + 0.3)
        found.append(
            (
                side,
                blob(HILUM[0] + radius * np.cos(angle), HILUM[1] + radius * np.sin(angle), size, size * 1.15),
            )
        )
    return found


def _texture(rng: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Lung markings too fine for the vessel tree, about unit variance, the same pattern at every size."""
    grid = rng.standard_normal((320, 320)).astype(np.float32)
    fine = grid - cv2.GaussianBlur(grid, (0, 0), 2.5)
    cloud = cv2.GaussianBlur(grid, (0, 0), 14)
    mixed = cv2.GaussianBlur(fine, (0, 0), 0.9) * 1.5 + cloud / cloud.std() * 0.9
    return cv2.resize(mixed, canvas.shape[::-1], interpolation=cv2.INTER_CUBIC)


def _vessels(rng: np.random.Generator, body: Body, lungs: dict[int, Lung], canvas: Canvas) -> np.ndarray:
    """cm of blood, drawn at full size: thin branches first, so that the trunks lie on top."""
    out = np.zeros(canvas.shape, np.uint8)
    fullness = rng.uniform(0.8, 1.25) * (0.7 if body.emphysema else 1.0)
    for side, lung in lungs.items():
        drawn = vessels(rng, lung, fullness)
        widths = [width for _, width in drawn]
        values = [255 * min(0.12 + width * 1.6, 1.0) for width in widths]
        canvas.lines(out, placed(np.array([segment for segment, _ in drawn]), side), widths, values)
    return cv2.GaussianBlur(out, (0, 0), max(0.05 * canvas.px_per_cm, 0.3)).astype(np.float32) / 255


def _pleural_lines(
    lungs: dict[int, Lung],
    air: tuple[Pneumothorax, ...],
    bullae: list[tuple[int, np.ndarray]],
    canvas: Canvas,
) -> np.ndarray:
    """cm of tissue in membranes seen on edge: the visceral pleura, the walls of bullae."""
    out = np.zeros(canvas.shape, np.uint8)
    for side, outline in bullae:
        canvas.line(out, placed(outline, side), 0.09, 255 * 0.22, closed=True)
    for a in air:
        kept = _kept(lungs[a.side], a)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], kept < 1, [0]]).astype(int)))
        for first, last in edges.reshape(-1, 2):
            canvas.line(out, placed(lungs[a.side].border(kept, first, last), a.side), 0.09, 255 * a.line_cm)
    return cv2.GaussianBlur(out, (0, 0), max(0.02 * canvas.px_per_cm, 0.3)).astype(np.float32) / 255


def _scatter(rng: np.random.Generator, base: np.ndarray, canvas: Canvas) -> np.ndarray:
    """Scattered intensity: a wide blur of the transmitted one."""
    share = rng.uniform(0.12, 0.45)
    through = np.exp(-base) * (base > 0.2)
    return share * cv2.GaussianBlur(through, (0, 0), 4.5 * canvas.px_per_cm) + 1e-4


def _window(
    rng: np.random.Generator, density: np.ndarray, lungs: np.ndarray, body: np.ndarray
) -> tuple[float, float]:
    """Attenuations shown black and white: dark lungs and a mediastinum short of white, more or less."""
    dark, bright = np.percentile(density[lungs], 2), np.percentile(density[body], 97)
    span = bright - dark
    return float(dark - span * rng.uniform(0.02, 0.32)), float(bright + span * rng.uniform(-0.08, 0.2))


def _develop(
    noise: np.random.Generator,
    look: np.random.Generator,
    arrived: np.ndarray,
    canvas: Canvas,
    window: tuple[float, float],
) -> np.ndarray:
    """Quantum noise (Poisson, by its normal limit), the detector's blur, logarithm, window and tone curve."""
    quanta = np.exp(look.uniform(np.log(8e6), np.log(2e8))) / canvas.px_per_cm**2
    blur, gamma, toe = look.uniform(0.010, 0.030), np.exp(look.normal(0, 0.2)), look.uniform(0, 0.8)
    arrived = arrived + np.sqrt(arrived / quanta) * noise.standard_normal(arrived.shape, dtype=np.float32)
    arrived = cv2.GaussianBlur(arrived, (0, 0), max(blur * canvas.px_per_cm, 0.25))
    low, high = window
    shown = np.clip((-np.log(np.maximum(arrived, 1e-6)) - low) / (high - low), 0, 1) ** np.float32(gamma)
    return ((1 - toe) * shown + toe * shown * shown * (3 - 2 * shown)).astype(np.float32)
