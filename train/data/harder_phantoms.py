"""Harder phantoms: changes of a drawn film after the exposure.

The films of `segmenter.phantom.draw` are frozen by the exam. Here a drawn film is warped, cropped, given the detail enhancement
of a vendor's software, and structures that are mistaken for a pneumothorax or hide one. All changes are independent of the
label, so that none can be learned as a sign.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from segmenter.phantom.values import Phantom

STREAM = 2_000  # of random numbers, separate from those of the generator

Image = NDArray[np.float32]


def make_harder(phantom: Phantom) -> Phantom:
    """The same phantom, harder: image (H, W) float32 in [0, 1] and truth (H, W) bool change together; all follows from its
    seed."""
    rng = np.random.default_rng([phantom.seed, STREAM])
    image, truth = warp(phantom.image, phantom.truth, rng)
    image, truth = crop(image, truth, rng)
    for chance, step in STEPS:
        if rng.random() < chance:
            image = step(image, rng)
    return replace(phantom, image=np.clip(image, 0, 1).astype(np.float32), truth=truth)


def warp(image: Image, truth: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Image, NDArray[np.bool_]]:
    """Smooth deformation by one or two hundredths of the film: rib cages differ."""
    h, w = image.shape
    # the wide bends make one lung smaller, one dome higher, the ribs steeper
    cells, least, most = (3, 0.005, 0.022) if rng.random() < 0.5 else (5, 0.002, 0.012)
    shift = _smooth(rng, (2, h, w), cells) * rng.uniform(least, most) * max(h, w)
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    at = (x + shift[0]).astype(np.float32), (y + shift[1]).astype(np.float32)
    moved = cv2.remap(image, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.remap(truth.astype(np.float32), *at, cv2.INTER_LINEAR)
    return np.asarray(moved, np.float32), mask > 0.5


def crop(image: Image, truth: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Image, NDArray[np.bool_]]:
    """Crop closer to the chest, as in many archives; the matrix keeps its size."""
    h, w = image.shape
    left, top = (float(v) for v in rng.uniform(0, 0.09, 2))
    right, bottom = 1 - rng.uniform(0, 0.09), 1 - rng.uniform(0, 0.12)
    scale = np.array([[w * (right - left) / w, 0, w * left], [0, h * (bottom - top) / h, h * top]])
    cut = [cv2.warpAffine(a, scale, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REPLICATE) for a in (image, truth.astype(np.float32))]  # fmt: skip
    return np.asarray(cut[0], np.float32), cut[1] > 0.5


def add_opacities(image: Image, rng: np.random.Generator) -> Image:
    """Ragged opacities of all sizes: oedema, pneumonia, contusion."""
    field = _smooth(rng, (1, *image.shape), cells=int(rng.integers(4, 12)))[0]
    field += 0.5 * _smooth(rng, (1, *image.shape), cells=30)[0]
    patches = np.clip(field - rng.uniform(0.6, 1.4), 0, 1.5)
    body = np.clip(image * 5, 0, 1)  # nothing in the air beside the patient
    return image + rng.uniform(0.08, 0.3) * patches * (1 - image) * body


def add_emphysema(image: Image, rng: np.random.Generator) -> Image:
    """Subcutaneous emphysema of one side: dark streaks along the muscle, over lung and chest wall."""
    h, w = image.shape
    layer = np.zeros((h, w), np.float32)
    side, slope = rng.choice([0.18, 0.82]) * w, rng.uniform(-0.9, 0.9)
    for _ in range(int(rng.integers(10, 40))):
        x, y = rng.normal(side, 0.07 * w), rng.uniform(0.1, 0.7) * h
        length, angle = rng.uniform(0.02, 0.12) * h, slope + rng.normal(0, 0.25) + np.pi / 2
        end = (int(x + length * np.cos(angle)), int(y + length * np.sin(angle)))
        cv2.line(layer, (int(x), int(y)), end, float(rng.uniform(0.05, 0.18)), max(1, round(rng.uniform(0.002, 0.007) * h)))
    return image - cv2.GaussianBlur(layer, (0, 0), 0.0025 * h)


def add_devices(image: Image, rng: np.random.Generator) -> Image:
    """Objects on the patient: a pacemaker with its leads, clips, buttons, a necklace, tubes."""
    h, w = image.shape
    layer = np.zeros((h, w), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        kind, x, y = rng.integers(4), rng.uniform(0.15, 0.85) * w, rng.uniform(0.1, 0.8) * h
        if kind == 0:
            cv2.ellipse(layer, (int(x), int(0.3 * y + 0.1 * h)), (int(0.06 * w), int(0.05 * h)), 0, 0, 360, 0.7, -1)
            _hose(layer, rng, (x, 0.3 * y + 0.1 * h), 0.003 * h, 0.6)
        elif kind == 1:
            for _ in range(int(rng.integers(2, 12))):
                cv2.circle(
                    layer, (int(x + rng.normal(0, 0.1 * w)), int(y + rng.normal(0, 0.1 * h))), max(1, int(0.004 * h)), 0.8, -1
                )
        elif kind == 2:
            cv2.ellipse(layer, (w // 2, int(0.05 * h)), (int(rng.uniform(0.1, 0.2) * w), int(rng.uniform(0.08, 0.25) * h)),
                        0, 0, 180, 0.5, max(1, int(0.003 * h)))  # fmt: skip
        else:
            _hose(layer, rng, (x, y), rng.uniform(0.004, 0.02) * h, rng.uniform(0.08, 0.3))
    return image + cv2.GaussianBlur(layer, (0, 0), 0.0012 * h) * (1.05 - image)


def add_scapulae(image: Image, rng: np.random.Generator) -> Image:
    """Scapulae over the lungs, as on supine films: their inner border resembles a pleural line."""
    h, w = image.shape
    layer = np.zeros((h, w), np.float32)
    inner, bottom, size = rng.uniform(0.22, 0.36), rng.uniform(0.35, 0.55), rng.uniform(0.8, 1.2)
    for side in (0, 1):
        corners = np.array([[inner, 0.12], [inner - 0.03, 0.25], [inner - 0.07, bottom], [inner - 0.2 * size, 0.3], [0, 0.15]])
        x, y = (corners + rng.normal(0, 0.015, corners.shape)).T
        outline = np.round(np.stack([w * (1 - x if side else x), h * y], 1)).astype(np.int32)
        cv2.fillPoly(layer, [outline], float(rng.uniform(0.06, 0.22)))
        cv2.polylines(layer, [outline[:3]], False, float(rng.uniform(0.12, 0.35)), max(1, round(0.004 * h)), cv2.LINE_AA)
    return _laid_over(image, layer, rng.uniform(0.002, 0.005))


def add_soft_tissue(image: Image, rng: np.random.Generator) -> Image:
    """Soft tissue with a visible edge over the lower lungs: breasts, folds of fat, a raised arm, the edge of a blanket."""
    h, w = image.shape
    layer = np.zeros((h, w), np.float32)
    for side in (0, 1):
        across, down = rng.uniform(0.18, 0.38), rng.uniform(0.5, 0.8)
        centre = (int(w * (1 - across if side else across)), int(h * down))
        axes = (int(w * rng.uniform(0.1, 0.24)), int(h * rng.uniform(0.08, 0.24)))
        cv2.ellipse(layer, centre, axes, float(rng.uniform(-35, 35)), 0, 360, float(rng.uniform(0.05, 0.2)), -1)
    return _laid_over(image, layer, rng.uniform(0.003, 0.02))


def add_shading(image: Image, rng: np.random.Generator) -> Image:
    """Brighter on one side, or in the middle: a tilted grid, hair, a blanket."""
    return image + rng.uniform(0.05, 0.16) * _smooth(rng, (1, *image.shape), cells=2)[0]


def compress_range(image: Image, rng: np.random.Generator) -> Image:
    """Compress large differences and keep fine detail: lungs become grey, as on the films of archives."""
    base = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.03, 0.12) * max(image.shape))
    return image - rng.uniform(0.15, 0.6) * (base - rng.uniform(0.45, 0.65))


def change_gamma(image: Image, rng: np.random.Generator) -> Image:
    """Gamma below 1: only the air around the patient stays black."""
    return np.clip(image, 0, 1) ** np.float32(rng.uniform(0.45, 0.95))


def enhance_detail(image: Image, rng: np.random.Generator) -> Image:
    """Amplify detail by frequency bands, as vendors' multi-frequency processing does."""
    out = image.copy()
    for share, most in ((0.003, 0.7), (0.012, 0.5), (0.05, 0.3)):
        out += rng.uniform(0.0, most) * (image - cv2.GaussianBlur(image, (0, 0), share * max(image.shape)))
    return out


def change_tone_curve(image: Image, rng: np.random.Generator) -> Image:
    """Another tone curve, rising everywhere: five knots at random heights."""
    knots = np.concatenate([[0], np.cumsum(rng.dirichlet(np.full(5, 6.0)))])
    return np.interp(image, np.linspace(0, 1, 6), knots).astype(np.float32)


def _laid_over(image: Image, layer: Image, softness: float) -> Image:
    """Add an attenuating layer: nothing in the air beside the patient, less where the film is bright already."""
    body = np.clip(cv2.GaussianBlur(image, (0, 0), 0.01 * max(image.shape)) * 12, 0, 1)
    soft = cv2.GaussianBlur(layer, (0, 0), softness * image.shape[0])
    return np.asarray(image + soft * (1.05 - image) * body, np.float32)


def _hose(layer: Image, rng: np.random.Generator, start: tuple[float, float], width: float, tone: float) -> None:
    h, w = layer.shape
    points = np.cumsum(np.concatenate([[start], rng.normal(0, 0.08, (5, 2)) * (w, h) + (0, 0.03 * h)]), axis=0)
    t = np.linspace(0, 5, 80)
    path = np.stack([np.interp(t, np.arange(6), points[:, i]) for i in (0, 1)], 1)
    path = cv2.GaussianBlur(path.astype(np.float32), (1, 21), 6, borderType=cv2.BORDER_REPLICATE)
    cv2.polylines(layer, [np.round(path).astype(np.int32)], False, tone, max(1, round(width)), cv2.LINE_AA)


def _smooth(rng: np.random.Generator, shape: tuple[int, int, int], cells: int) -> NDArray[np.float32]:
    """(C, H, W) fields of about unit variance that change over a `cells`-th of the film."""
    c, h, w = shape
    grid = rng.standard_normal((c, cells + 3, cells + 3)).astype(np.float32)
    return np.stack([cv2.resize(g, (w, h), interpolation=cv2.INTER_CUBIC) for g in grid])


STEPS = (  # chance, step; in this order
    (0.35, add_opacities),
    (0.2, add_emphysema),
    (0.3, add_devices),
    (0.35, add_scapulae),
    (0.3, add_soft_tissue),
    (0.25, add_shading),
    (0.55, compress_range),
    (0.4, change_gamma),
    (0.5, enhance_detail),
    (0.5, change_tone_curve),
)
