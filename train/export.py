"""A run -> an artifact: averaged weights, thresholds from validation films, and a card that says what it
is."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path

from segmenter.artifact import MANIFEST_FILE, Artifact, load_artifact, write_artifact
from segmenter.network import build_network
from train import checkpoint
from train.calibrate import answers, operating_points, temperature
from train.card import card
from train.config import Recipe
from train.exam import generator_sha256
from train.films import fill_cache, load_films
from train.metrics import auroc

NAME, VERSION = "ptx-unet-effb4-demo", "0.1.1"


def export(recipe: Recipe, cache: Path, run: Path, out: Path, *, size: int, films: int, processes: int = 1) -> Artifact:
    """Write the averaged weights of `run` to the folder `out` as a demo artifact for input `size`.

    The first `films` validation phantoms choose temperature and thresholds. Raises ArtifactError,
    FileNotFoundError.
    """
    network = build_network(recipe.network)
    network.load_state_dict(checkpoint.load(run, "ema"))
    f = recipe.films
    validation = load_films(fill_cache(cache, f.cache_size, f.validation_first_seed, f.validation_count, processes))
    said = answers(network, validation[:films], size, recipe.mean, recipe.std)
    by = temperature(said.image_logit, said.positive)
    points = operating_points(said, by, size)
    manifest = {
        "name": NAME,
        "version": VERSION,
        "intended_use": "demo",
        "network": recipe.network,
        "input": {"size": size, "mean": recipe.mean, "std": recipe.std},
        "temperature": by,
        "flips": True,
        "operating_point": "balanced",
        "operating_points": {name: asdict(point) for name, point in points.items()},
        "metrics": {"validation": {"films": films, "auroc": round(auroc(said.positive, said.image_logit) or 0, 4)}},
        "data": {
            "description": "synthetic phantoms only; no film of a patient",
            "train": f"{f.count} phantoms, seeds from {f.first_seed}",
            "validation": f"{films} phantoms, seeds from {f.validation_first_seed}",
        },
        "recipe": recipe.name,
        "seed": recipe.seed,
        "generator_sha256": generator_sha256(),
        "commit": _commit(),
    }
    return write_artifact(out, network.state_dict(), manifest, card(manifest))


def record_exam(folder: Path, report: dict[str, object]) -> Artifact:
    """Put the figures of `evaluate` into manifest and card. The weights stay as they are."""
    artifact = load_artifact(folder)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["metrics"]["exam"] = report
    kept = {key: value for key, value in manifest.items() if key not in ("schema", "weights")}
    return write_artifact(folder, artifact.stored_tensors(), kept, card(kept))


def _commit() -> str:
    """Of the checkout the code runs from; empty outside one."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()
