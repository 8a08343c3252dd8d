"""The state of a run in one folder, written so that it is whole or absent. Weights are safetensors, never
pickles."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass
class Progress:
    """Where a run is: enough to go on from the last checkpoint, within the same stage."""

    step: int = 0  # of the whole run
    stage: int = 0
    stage_step: int = 0
    stage_seconds: float = 0.0


def save(folder: Path, tensors: dict[str, dict[str, torch.Tensor]], progress: Progress, notes: dict[str, object]) -> None:
    """Write NAME.safetensors for each group of tensors ("network", "ema", "optimiser"), then
    progress.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, group in tensors.items():
        copies = {key: tensor.detach().contiguous().clone() for key, tensor in group.items()}
        temporary = folder / f".{name}.{os.getpid()}"
        save_file(copies, temporary)
        temporary.replace(folder / f"{name}.safetensors")
    temporary = folder / f".progress.{os.getpid()}"
    temporary.write_text(json.dumps({**progress.__dict__, **notes}, indent=2))
    temporary.replace(folder / "progress.json")


def load(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def load_progress(folder: Path) -> Progress | None:
    path = folder / "progress.json"
    if not path.exists():
        return None
    raw = json.loads(path.read_text())
    return Progress(**{key: raw[key] for key in Progress().__dict__})


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Adam's moments by position, e.g. "17.exp_avg"."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{key}": value for i, slots in state.items() for key, value in slots.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        i, key = name.split(".", 1)
        state.setdefault(int(i), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
