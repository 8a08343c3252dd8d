"""A training run in a process of its own that may be killed in the middle of a step. The processes are forks of one that has
imported torch and what a run needs beside it, and done nothing else: each of them would need seconds for that."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any


def run_until(data: Path, run: Path, recipe: Path, *, kill_after: int) -> int:
    """The exit code of a `fit --resume` that saves after every step; `kill_after`: steps until its kill -9, 0 for none."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train.fit.fit", "segmentation_models_pytorch", "torch.utils.tensorboard"])
    process = context.Process(target=_fit, args=(data, run, recipe, kill_after))
    process.start()
    process.join(800)
    assert process.exitcode is not None, "the run does not end"
    return process.exitcode


def _fit(data: Path, run: Path, recipe: Path, kill_after: int) -> None:
    import torch

    from train.fit import fit
    from train.fit.recipe import load_recipe

    torch.set_num_threads(1)
    fit.SAVE_EVERY_SECONDS = 0
    real, count = fit.step, 0

    def step(*args: Any, **kwargs: Any) -> dict[str, float]:
        nonlocal count
        parts = real(*args, **kwargs)
        count += 1
        if count == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return parts

    fit.step = step
    fit.fit(load_recipe(str(recipe)), fit.Order(data, run, recipe, resume=True, device="cpu"))
