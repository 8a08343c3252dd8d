"""One cached film -> one training sample, never twice the same. No vertical flip: lungs do not hang upside
down."""

from __future__ import annotations

import cv2
import numpy as np

from train.config import Augmentation


def augment(film: np.ndarray, size: int, how: Augmentation, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`film` (2, C, C) uint8 image and truth -> image (size, size) float32 in [0, 1], truth (size, size)
    float32 0 or 1."""
    image, truth = moved(_shrunk(film, size), how, rng)
    return toned(image, how, rng), truth


def plain(film: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The film as it is, for validation. Shapes as `augment`."""
    image, truth = _shrunk(film, size)
    return image, (truth > 0.5).astype(np.float32)


def _shrunk(film: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Averaged over the area, as Placement does with a film; both float32 in [0, 1]."""
    image, truth = (part.astype(np.float32) / 255 for part in film)
    if film.shape[1] != size:
        image, truth = (cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA) for part in (image, truth))
    return image, truth


def moved(pair: tuple[np.ndarray, np.ndarray], how: Augmentation, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mirrored, turned, scaled and shifted, each about the middle and by a random amount both ways."""
    image, truth = pair
    size = image.shape[0]
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), rng.normal(0, how.rotation_degrees), np.exp(rng.normal(0, how.scale)))
    matrix[:, 2] += rng.normal(0, how.shift, 2) * size
    if rng.random() < 0.5:
        matrix[0] = [-matrix[0, 0], -matrix[0, 1], size - 1 - matrix[0, 2]]
    image = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
    truth = cv2.warpAffine(truth, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return image, (truth > 0.5).astype(np.float32)


def toned(image: np.ndarray, how: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Another window, gamma, sharpness and dose: the same film from another room."""
    low, high = rng.normal(0, how.window), 1 + rng.normal(0, how.window)
    image = np.clip((image - low) / max(high - low, 0.3), 0, 1) ** np.exp(rng.normal(0, how.gamma))
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.2, how.blur) * image.shape[0] / 512 + 0.05)
    if rng.random() < 0.5:
        image = image + rng.normal(0, rng.uniform(0, how.noise), image.shape)
    return np.clip(image, 0, 1).astype(np.float32)
