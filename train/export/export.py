"""Runs and their calibration -> an artifact: weights, manifest and model card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmenter.model.artifact import COMPARE_ONLY, MANIFEST_FILE, Artifact, load_artifact, write_artifact
from train.data.dataset import PreparedSet
from train.evaluate.calibrate import CALIBRATION_FILE, matching_runs
from train.export.card import card
from train.export.onnx_graph import add_graphs
from train.fit import checkpoint
from train.fit.fit import RunError

DESCRIPTIONS = {
    "phantoms": "Synthetic phantoms only; no film of a patient.",
    "SIIM-ACR": "SIIM-ACR Pneumothorax Segmentation (films of NIH ChestX-ray14, masks by radiologists).",
    "PNG export": "SIIM-ACR Pneumothorax Segmentation, from its PNG export.",
}


@dataclass(frozen=True)
class ArtifactLabel:
    """Name, version and defaults of an artifact."""

    name: str
    version: str
    flips: bool | None = None  # None: as calibrated
    operating_point: str = ""  # "": the recipe's


def export(data: PreparedSet, runs: Sequence[Path], calibration: Path, out: Path, label: ArtifactLabel) -> Artifact:
    """Write the artifact of one run, or of an ensemble of one run for each fold, into `out`. Raises RunError when the
    calibration is of other runs, data or flips; ArtifactError; FileNotFoundError for a run without a checkpoint."""
    recipe, notes = matching_runs(data, runs)
    try:
        found = json.loads((calibration / CALIBRATION_FILE).read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{calibration / CALIBRATION_FILE} cannot be read; run `python -m train calibrate` first") from error
    if found["data_sha256"] != data.digest or found["folds"] != [note["fold"] for note in notes]:
        raise RunError(f"{calibration} is of other runs or another data set; calibrate these runs, in this order")
    weights = [checkpoint.select_weights(run, found["weights"]) for run in runs]
    if found.get("weights_sha256") != [checkpoint.digest(one) for one in weights]:
        raise RunError(f"{calibration} is of other weights: a run went on or was repeated since; calibrate again")
    flips = found["flips"] if label.flips is None else label.flips
    if flips != found["flips"]:
        raise RunError(f"the calibration was made {'with' if found['flips'] else 'without'} flips; thresholds would not fit")
    about, phantoms = data.about, data.about["kind"] == "phantoms"
    started = notes[0].get("start") or (
        f"ImageNet weights {notes[0]['imagenet_sha256'][:16]}" if notes[0]["imagenet_sha256"] else ""
    )
    manifest = {
        "name": label.name,
        "version": label.version,
        "intended_use": "demo" if phantoms else "research",  # a model trained on phantoms only is a demonstration
        "network": recipe.network,
        "input": {"size": found["size"], "mean": recipe.mean, "std": recipe.std},
        "temperature": found["temperature"],
        "flips": flips,
        "operating_point": label.operating_point or recipe.operating_point,
        "operating_points": found["operating_points"],
        "metrics": {"out_of_fold": {k: v for k, v in found.items() if k != "curve"}, "evaluations": {}},
        "data": {
            "description": DESCRIPTIONS[about["kind"]],
            **{
                k: about[k]
                for k in ("films", "patients", "strata", "left_out", "folds", "split", "folds_sha256", "index_sha256")
            },
            "runs": [_run(run, note) for run, note in zip(runs, notes, strict=True)],
            "start": started or "random weights",
        },
        "recipe": recipe.name,
        "seed": recipe.seed,
        "generator_sha256": about["phantoms"]["generator_sha256"] if phantoms else "",
        "commit": notes[0]["commit"],
        "folds": [note["fold"] for note in notes],
    }
    if manifest["operating_point"] in COMPARE_ONLY:
        manifest["operating_point"] = "clinical"
    return add_graphs(write_artifact(out, weights, manifest, card(manifest)))


def _run(run: Path, note: dict[str, Any]) -> dict[str, Any]:
    # select_weights() has found one of them
    last = checkpoint.load_progress((checkpoint.steps(run) or [run / checkpoint.BEST])[-1])
    kept = {k: note[k] for k in ("fold", "commit", "device", "packages", "began", "imagenet_sha256")}
    return {**kept, "steps": last.step, "best_step": last.best_step, "best_score": round(last.best_score, 4)}


def record_evaluation(folder: Path, name: str, report: dict[str, Any]) -> Artifact:
    """Write the figures of an evaluation into manifest and card, under `name`. The weights stay unchanged. Raises
    ArtifactError, RunError."""
    artifact = load_artifact(folder)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    if "out_of_fold" not in manifest["metrics"]:
        raise RunError(f"{folder} was exported by an older version, its card cannot be written anew; export it again")
    manifest["metrics"].setdefault("evaluations", {})[name] = report
    kept = {key: value for key, value in manifest.items() if key not in ("schema", "weights", "graphs")}
    tensors = [artifact.stored_tensors(i) for i in range(len(artifact.manifest.weights))]
    return add_graphs(write_artifact(folder, tensors, kept, card(kept)))
