"""One synthetic chest film with its truth: for the demo, the tests and training.

A ray crosses soft tissue, bone and air (`anatomy.py`, `findings.py`); its intensity at the detector follows the law of Beer and
Lambert; scatter, quantum noise and the detector's blur are added; a window gives the picture (`exposure.py`). Geometry is in
centimetres and every element has its own random stream, so one seed is one film at any size, and two films of one seed with and
without a pneumothorax (or a tube) have no other difference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segmenter.phantom.anatomy import Canvas, draw_body
from segmenter.phantom.exposure import expose
from segmenter.phantom.findings import Lung, draw_pneumothorax
from segmenter.phantom.values import Phantom

# how often each occurs, whether or not there is a pneumothorax
DISTRACTORS = {
    "skin fold": 0.24,
    "tube": 0.24,
    "scapula": 0.30,
    "companion shadow": 0.30,
    "bulla": 0.15,
    "ECG leads": 0.30,
    "letters": 0.55,
    "collimation": 0.25,
    "rotation": 0.30,
    "emphysema": 0.16,
    "opacity": 0.22,
    "line": 0.22,
}
STREAMS = (
    "setting",
    "body",
    "bones",
    "vessels",
    "pneumothorax",
    "tube",
    "present",
    "fold",
    "companion shadow",
    "bulla",
    "ECG leads",
    "letters",
    "collimation",
    "texture",
    "noise",
    "window",
    "opacity",
    "line",
    "gas",
)


def draw_phantom(
    seed: int,
    *,
    shape: tuple[int, int] = (1280, 1088),
    pneumothorax: bool | None = None,
    tube: bool | None = None,
    distractors: frozenset[str] | None = None,
) -> Phantom:
    """The film of `seed`, `shape` (H, W) pixels, each at least 64. With None the seed decides: half of the films have a
    pneumothorax.

    Raises ValueError for a smaller shape.
    """
    if min(shape) < 64:
        raise ValueError(f"shape {shape} is too small for a chest film; ask for 64 pixels or more each way")
    stream = {name: np.random.default_rng([seed, i]) for i, name in enumerate(STREAMS)}
    present = {k for k, p in DISTRACTORS.items() if stream["present"].random() < p}
    if distractors is not None:
        present = set(distractors)
    if tube is not None:
        present = present | {"tube"} if tube else present - {"tube"}
    body = draw_body(stream["body"])
    body = replace(body, scapula=max(body.scapula, 1.0) if "scapula" in present else min(body.scapula, 0.0))
    present = present | {"emphysema"} if body.emphysema else present - {"emphysema"}
    canvas = canvas_of(stream["setting"], shape, "rotation" in present)
    lungs = {side: Lung(body, side) for side in (-1, 1)}
    wanted = bool(stream["pneumothorax"].random() < 0.5) if pneumothorax is None else pneumothorax
    film_cm2 = shape[0] * shape[1] / canvas.px_per_cm**2
    air = draw_pneumothorax(stream["pneumothorax"], lungs, film_cm2) if wanted else ()
    image, truth = expose(stream, body, lungs, air, canvas, frozenset(present))
    return Phantom(
        seed=seed,
        image=image,
        truth=truth,
        spacing_mm=10 / canvas.px_per_cm,
        sites=tuple(a.site for a in air),
        side=("left" if air[0].side < 0 else "right") if air else None,
        distractors=frozenset(present),
    )


def canvas_of(rng: np.random.Generator, shape: tuple[int, int], rotated: bool) -> Canvas:
    """The position of the patient: a film of 33 to 42 cm, mostly straight and centred."""
    extent = rng.uniform(33, 42)
    angle = np.radians(rng.choice([-1, 1]) * rng.uniform(2.5, 8) if rotated else rng.normal(0, 0.8))
    centre = (rng.normal(0, 0.9), rng.normal(-1.2, 1.1))
    return Canvas(shape, (shape[0] + shape[1]) / 2 / extent, centre, float(angle))
