"""Training runs in processes of their own: one that may be killed in the middle of a step, or several together. The processes
are forks of one that has imported torch and what a run needs beside it, and done nothing else: each of them would need seconds
for that."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BESIDE_TORCH = ("segmentation_models_pytorch", "torch.utils.tensorboard")


def run_until(data: Path, run: Path, recipe: Path, *, kill_after: int) -> int:
    """The exit code of a `fit --resume` that saves after every step; `kill_after`: steps until its kill -9, 0 for none."""
    [code] = _forked(_fit, [(data, run, recipe, kill_after)])
    return code


def run_together(data: Path, run: Path, recipe: Path, port: int, ranks: Sequence[Path]) -> list[int]:
    """The exit codes of the processes of one `fit`, which meet at `port` of this machine; into each of `ranks` one of them
    writes the digest of its weights."""
    return _forked(_fit_together, [(data, run, recipe, port, number, ranks) for number in range(len(ranks))])


def _forked(target: Callable[..., None], each: Sequence[tuple[Any, ...]]) -> list[int]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train.fit.fit", *BESIDE_TORCH])
    processes = [context.Process(target=target, args=arguments) for arguments in each]
    for one in processes:
        one.start()
    for one in processes:
        one.join(800)
    codes = [one.exitcode for one in processes if one.exitcode is not None]
    assert len(codes) == len(processes), "the run does not end"
    return codes


def _fit_together(data: Path, run: Path, recipe: Path, port: int, number: int, ranks: Sequence[Path]) -> None:
    import torch

    from train.fit import fit
    from train.fit.recipe import load_recipe

    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(len(ranks))}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    real, states = fit.initial_state, []

    def fresh(*args: Any) -> Any:
        states.append(real(*args))
        return states[-1]

    fit.initial_state = fresh
    fit.fit(load_recipe(str(recipe)), fit.FitOptions(data, run, recipe, device="cpu"))
    weights = b"".join(one.detach().numpy().tobytes() for one in states[0].network.parameters())
    ranks[number].write_text(hashlib.sha256(weights).hexdigest())


def _fit(data: Path, run: Path, recipe: Path, kill_after: int) -> None:
    import torch

    from train.fit import fit
    from train.fit.recipe import load_recipe

    torch.set_num_threads(1)
    fit.SAVE_EVERY_SECONDS = 0
    real, count = fit.train_step, 0

    def step(*args: Any, **kwargs: Any) -> dict[str, float]:
        nonlocal count
        parts = real(*args, **kwargs)
        count += 1
        if count == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return parts

    fit.train_step = step
    fit.fit(load_recipe(str(recipe)), fit.FitOptions(data, run, recipe, resume=True, device="cpu"))
