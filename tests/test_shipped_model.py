"""The shipped model on counterfactual pairs: films of one seed that differ in one thing alone.

Its answer must turn with the pneumothorax, and must not turn with a chest tube, which in hospital films stands beside
most treated pneumothoraces and is what careless models learn instead.

The aim is that .90 of the pairs turn. Version 0.4.1 turns .88 (two of the six that do not turn are lesions too faint to be
seen), and no film turns with the tube: the bar below is near what it reached, so that no change makes it worse unnoticed. Raise
it with the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import segmenter
from segmenter.artifact import load_artifact
from segmenter.engine import Segmenter
from segmenter.phantom import Phantom, draw, film
from segmenter.settings import Settings

pytestmark = pytest.mark.timeout(900)  # a hundred films through the whole network

FIRST_SEED, PAIRS = 7_000_000, 50  # training has seeds below 415,000, the exam 6,000,000 to 6,000,199
SHAPE = (640, 544)
TURNED = 0.82  # three pairs below what it reached: other processors round differently


@pytest.fixture(scope="module")
def answers() -> dict[str, list[bool]]:
    """Whether each film is called positive: without anything, with a pneumothorax, with a tube."""
    served = Segmenter(load_artifact(Path(segmenter.__file__).parent / "artifacts" / "demo"), Settings())
    said: dict[str, list[bool]] = {"well": [], "sick": [], "tube": []}
    for seed in range(FIRST_SEED, FIRST_SEED + PAIRS):
        for name, drawn in trio(seed):
            [finding] = served.segment([film(drawn, kind="DX", bits=12)])
            assert finding.decision is not None, finding
            said[name].append(finding.decision.positive)
    return said


def trio(seed: int) -> Iterator[tuple[str, Phantom]]:
    for name, pneumothorax, tube in (("well", False, False), ("sick", True, False), ("tube", False, True)):
        yield name, draw(seed, shape=SHAPE, pneumothorax=pneumothorax, tube=tube)


def turned(before: list[bool], after: list[bool]) -> float:
    return sum(a != b for a, b in zip(before, after, strict=True)) / len(before)


@pytest.mark.timeout(900)
def test_the_answer_turns_with_the_pneumothorax(answers: dict[str, list[bool]]) -> None:
    assert turned(answers["well"], answers["sick"]) >= TURNED
    assert sum(answers["sick"]) > sum(answers["well"]), "and the right way round"


@pytest.mark.timeout(900)
def test_the_answer_does_not_turn_with_a_tube(answers: dict[str, list[bool]]) -> None:
    assert turned(answers["well"], answers["tube"]) <= 0.05
