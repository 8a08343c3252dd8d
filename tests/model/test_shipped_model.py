"""The shipped model on counterfactual pairs (train/evaluate/counterfactual.py): its answer must turn with the
pneumothorax, and must not turn with a chest tube.

The aim is that .90 of the pairs turn. Of the command's own 50 pairs version 0.4.3 turns .92 (two of the four that do not turn
are lesions too faint to be seen), of the first 30, which are asked here, .90; no film turns with the tube. The bar below is
near that, so that no change makes it worse unnoticed. Raise it with the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import segmenter
from train.cli import main
from train.evaluate.counterfactual import summary

pytestmark = pytest.mark.timeout(900)  # ninety films through the whole network

DEMO = Path(segmenter.__file__).parent / "artifacts" / "demo"
PAIRS = 30
TURNED = 0.83  # two pairs below what it reached: other processors round differently


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    result = CliRunner().invoke(main, ["pairs", "--artifact", str(DEMO), "--count", str(PAIRS), "--json"])
    assert result.exit_code == 0, result.output[-2000:]
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["pairs"] == PAIRS and not found["unanswered"] and found["operating_point"] == "clinical"
    return found


def test_the_answer_turns_with_the_pneumothorax(report: dict[str, Any]) -> None:
    assert report["turned"] >= TURNED
    wrong = set(report["missed"]) | set(report["false_alarms"])
    assert report["turned"] == round(1 - len(wrong) / report["pairs"], 4), "every pair that does not turn is named"
    low, high = report["turned_interval"]
    assert 0 < low < report["turned"] <= high
    assert f"{report['turned']:.1%} ({low:.1%} to {high:.1%}) turn with the pneumothorax" in summary(report)


def test_the_answer_does_not_turn_with_a_tube(report: dict[str, Any]) -> None:
    assert report["turned_with_tube"] <= 0.05
