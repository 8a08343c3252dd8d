"""Counterfactual pairs: phantoms of one seed that differ in one finding only, through the whole inference path.

The answer must change with the pneumothorax. It must not change with a chest tube, which is seen with most treated
pneumothoraces in hospital films and which models learn by mistake.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from scipy.stats import binomtest
from tqdm import trange

from segmenter.engine import Segmenter
from segmenter.model.artifact import load_artifact
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.settings import Settings

SHAPE = (640, 544)  # (H, W)
VERSIONS = {"well": (False, False), "sick": (True, False), "tube": (False, True)}  # pneumothorax, tube


def measure_pairs(
    folder: Path, pairs: int, first_seed: int, *, operating_point: str = "", device: str = "auto"
) -> dict[str, Any]:
    """The share of answers that change, in [0, 1] with its exact 95 % interval, and the seeds with a wrong answer.

    `turned`: the film with the pneumothorax is positive, the one without is not. `turned_with_tube`: the tube alone changes the
    answer, in either direction. Raises SegmenterError.
    """
    artifact = load_artifact(folder)
    segmenter = Segmenter(artifact, Settings(operating_point=operating_point, device=device))
    called: dict[str, dict[int, bool]] = {name: {} for name in VERSIONS}
    unanswered = Counter[str]()
    for seed in trange(first_seed, first_seed + pairs, desc="pairs", unit="pair"):
        for name, (pneumothorax, tube) in VERSIONS.items():
            phantom = draw_phantom(seed, shape=SHAPE, pneumothorax=pneumothorax, tube=tube)
            (finding,) = segmenter.segment([phantom_dataset(phantom, kind="DX", bits=12)])
            called[name][seed] = finding.decision is not None and finding.decision.positive
            if finding.decision is None:
                unanswered[finding.code or "?"] += 1
    well, sick, tubed = (called[name] for name in VERSIONS)
    return {
        "model": {"name": artifact.manifest.name, "version": artifact.manifest.version, "weights_sha256": artifact.sha256},
        "operating_point": segmenter.identity.operating_point,
        "first_seed": first_seed,
        "pairs": pairs,
        "unanswered": unanswered,
        **_share("turned", sum(sick[seed] and not well[seed] for seed in sick), pairs),
        **_share("turned_with_tube", sum(tubed[seed] != well[seed] for seed in tubed), pairs),
        "missed": [seed for seed in sick if not sick[seed]],
        "false_alarms": [seed for seed in well if well[seed]],
    }


def _share(name: str, count: int, of: int) -> dict[str, Any]:
    """Interval of Clopper & Pearson, Biometrika 26 (1934)."""
    low, high = binomtest(count, of).proportion_ci()
    return {name: round(count / of, 4), f"{name}_interval": [round(float(low), 4), round(float(high), 4)]}


def summary(report: dict[str, Any]) -> str:
    """The report of `measure_pairs` in one line."""
    def share(name: str) -> str:
        low, high = report[f"{name}_interval"]
        return f"{report[name]:.1%} ({low:.1%} to {high:.1%})"

    model = report["model"]
    silent = sum(report["unanswered"].values())
    return (
        f"{model['name']} {model['version']} at {report['operating_point']}, {report['pairs']} pairs from seed "
        f"{report['first_seed']}: {share('turned')} turn with the pneumothorax, {share('turned_with_tube')} with a tube; "
        f"missed {_listed(report['missed'])}, false alarm {_listed(report['false_alarms'])}"
    ) + (f"; {silent} films got no answer and count as not called" if silent else "")


def _listed(seeds: list[int]) -> str:
    return f"{len(seeds)}" + (f" (seeds {', '.join(map(str, seeds))})" if seeds else "")
