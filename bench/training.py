"""Rows of the bench about training: the input pipeline, one step, and the share of a step that waits for data."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rows import Row, row

FILMS = 32  # drawn once, read again and again: from the page cache, as most of SIIM-ACR at 512 px is (3 GB)
CPU_BATCH = 2  # a step of the recipe's own batch takes a minute on two cores
STEPS = {"cpu": 3, "cuda": 12}


def measure(scratch: Path, device: str) -> Iterator[Row]:
    """`published` and `strong`, first stage, 512 px, on "cpu" or "cuda"."""
    import torch

    from train.fit.recipe import load_recipe

    data, gpu = _data(scratch / "training"), device == "cuda"
    for name in ("published", "strong"):
        recipe = load_recipe(name)
        where = f"{'gpu' if gpu else 'stages'}: training `{name}` at 512 px, {device.upper()}"
        stage = recipe.stages[0] if gpu else dataclasses.replace(recipe.stages[0], batch=CPU_BATCH)
        precision = recipe.precision if gpu else "fp32"
        yield row(f"{where}: input pipeline", _pipeline(data, stage), "images/s", "itself", "higher")
        for compiled in (True, False) if gpu else (False,):
            how = dataclasses.replace(recipe, precision=precision, compile=compiled)
            speed, waiting = _step(data, how, stage, torch.device(device))
            against, aim = ("71 on an RTX 3090", 400.0) if compiled else ("itself", None)
            of = ", not compiled" if gpu and not compiled else ""
            yield row(f"{where}: one step, augmentation included{of}", speed, "images/s", against, "higher", aim)
            yield row(f"{where}: share of a step that waits for data{of}", waiting, "ratio", "step", "lower", 0.05)


def _data(folder: Path):  # type: ignore[no-untyped-def]
    from train.data import phantoms, prepare
    from train.data.dataset import PreparedSet

    phantoms.write_phantoms(phantoms.PhantomPlan(50_000, FILMS, 512, 0.5), folder / "raw", workers=2)
    prepare.prepare(prepare.PreparePlan(folder / "raw", folder / "data", sizes=(512,), folds=2, workers=2))
    return PreparedSet(folder / "data")


def _plan(data, stage, steps: int):  # type: ignore[no-untyped-def]
    from train.fit.loop import epoch_plan

    positive = np.array([row.positive for row in data.rows])
    return epoch_plan(positive, dataclasses.replace(stage, steps=steps), 0, (0, 0))


def _pipeline(data, stage) -> float:  # type: ignore[no-untyped-def]
    """Images a second that the reader hands over, nothing done with them."""
    from train.fit.loop import batches

    plan, rates = _plan(data, stage, max(4, 256 // stage.batch)), []
    for _ in range(3):
        started = time.perf_counter()
        for _batch in batches(data, list(data.rows), plan, 512, pin=False):
            pass
        rates.append(plan.size / (time.perf_counter() - started))
    return statistics.median(rates)


def _step(data, recipe, stage, device) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Images a second of whole steps, reading included, and the share of their time that waits; the first ones warm up."""
    import torch

    from train.fit import fit
    from train.fit.distributed import ProcessGroup
    from train.fit.loop import WaitTimer, batches

    state = fit.initial_state(recipe, fit.FitOptions(data.folder, Path(), Path()), ProcessGroup(0, 1, device))
    network = torch.compile(state.network) if recipe.compile else state.network
    fit.set_rates(state.optimiser, stage, recipe, 0, 0.0)
    warm, steps = (1, STEPS["cpu"]) if device.type == "cpu" else (4, STEPS["cuda"])
    waiting, times = WaitTimer(), []
    for number, (images, truths) in enumerate(
        waiting.timed(batches(data, list(data.rows), _plan(data, stage, warm + steps), 512, pin=device.type == "cuda"))
    ):
        if number == warm:
            waiting.began, waiting.seconds = time.perf_counter(), 0.0
        started = time.perf_counter()
        fit.train_step(network, state, stage, recipe, images, truths, (0, number, 0), device)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    share = waiting.share
    return stage.batch / (statistics.median(times[warm:]) / (1 - share)), share
