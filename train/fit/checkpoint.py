"""The state of a run on disk: a checkpoint folder is complete or absent. Weights are safetensors, never pickles.

RUN/step-0001234/   network, ema, optimiser (and scaler) .safetensors, progress.json; the last three are kept
RUN/best/           ema.safetensors and progress.json of the best epoch so far
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

KEPT = 3
BEST = "best"

Tensors = dict[str, torch.Tensor]


@dataclass
class Progress:
    """The position of a run, from which it can be resumed."""

    step: int = 0  # of the whole run
    stage: int = 0
    epoch: int = 0  # of the stage
    step_of_epoch: int = 0
    stage_step: int = 0
    stage_seconds: float = 0.0
    best_score: float = -1.0
    best_step: int = 0


def save(folder: Path, groups: dict[str, Tensors], progress: Progress) -> None:
    """Write NAME.safetensors for each group, then rename the folder: an interruption leaves no partial checkpoint. Raises
    OSError."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, group in groups.items():
        save_file({k: t.detach().cpu().contiguous().clone() for k, t in group.items()}, temporary / f"{name}.safetensors")
    (temporary / "progress.json").write_text(json.dumps(asdict(progress), indent=2))
    for path in temporary.iterdir():
        _sync(path)
    if folder.exists():  # only `best`: for a moment there is none, and `steps` has the last checkpoints
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old)
    else:
        temporary.rename(folder)
    _sync(folder.parent)


def save_step(run: Path, groups: dict[str, Tensors], progress: Progress) -> None:
    """Save a checkpoint of this step and remove the oldest beyond KEPT. Raises OSError."""
    folder = run / f"step-{progress.step:07}"
    if not folder.exists():
        save(folder, groups, progress)
    for old in steps(run)[:-KEPT]:
        shutil.rmtree(old)
    for left in (*run.glob(".step-*"), *run.glob(f".{BEST}.*")):  # left by an interruption; other files are not touched
        shutil.rmtree(left)


def steps(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(p for p in run.glob("step-*") if (p / "progress.json").exists())


def load(folder: Path, name: str) -> Tensors:
    """The tensors of one group by name. Raises OSError, SafetensorError."""
    return load_file(folder / f"{name}.safetensors")


def load_progress(folder: Path) -> Progress:
    """The position of a checkpoint. Raises OSError, ValueError."""
    return Progress(**json.loads((folder / "progress.json").read_text()))


def select_weights(run: Path, which: str) -> Tensors:
    """Averaged weights of a run: of its "best" epoch, the "last" checkpoint, or the "mean" of the last three. Weights may
    be averaged within one run only; over folds predictions are.

    Raises FileNotFoundError when the run has none.
    """
    folders = [run / BEST] if which == "best" and (run / BEST).exists() else steps(run)
    if not folders:
        raise FileNotFoundError(f"{run} has no checkpoint; is it the folder that was given to `fit --run`?")
    if which != "mean":
        return load(folders[-1], "ema")
    members = [load(folder, "ema") for folder in folders]
    first = members[0]
    return {
        k: torch.stack([m[k] for m in members]).mean(0) if t.is_floating_point() else members[-1][k] for k, t in first.items()
    }


def digest(tensors: Tensors) -> str:
    """sha256 of weights in the order of their names, on whatever device they are."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> Tensors:
    """Adam's moments by position, e.g. "17.exp_avg"."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{key}": value for i, slots in state.items() for key, value in slots.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Load Adam's moments, in the memory layout of their weights: files do not store channels_last, and moments of another
    layout are updated with one kernel for each tensor."""
    of = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, Tensors] = {}
    for name, value in tensors.items():
        i, key = name.split(".", 1)
        like = of[int(i)]
        state.setdefault(int(i), {})[key] = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
