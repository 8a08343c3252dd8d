"""The parts of a training step: which films, in which order, at which learning rate; averaged weights.

The plan of an epoch and the random numbers of a step follow from seed, stage, epoch and step only. So a run that was killed and
resumed gives the same weights as an uninterrupted one.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.data.dataset import FilmRow, PreparedSet
from train.fit.recipe import Optimiser, Stage

BATCHES_AHEAD = 3  # read before they are needed


def steps_per_epoch(stage: Stage, films: int) -> int:
    """The stage's steps, or as many as `films` fill."""
    return stage.steps or max(1, films // stage.batch)


def positive_share(stage: Stage, epoch: int) -> float:
    """Share of positive films in a batch, linear from the first to the last epoch of the stage; 0: films as they come."""
    first, last = stage.positives
    return first + (last - first) * epoch / max(stage.epochs - 1, 1)


def epoch_plan(positive: NDArray[np.bool_], stage: Stage, epoch: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """(steps, batch) indices of films. Every positive film comes once before any comes twice, and so do the negative ones.
    `positive` (N,)."""
    rng = np.random.default_rng([*seed, epoch])
    steps, share = steps_per_epoch(stage, len(positive)), positive_share(stage, epoch)
    if share == 0 or positive.all() or not positive.any():
        return _stream(np.arange(len(positive)), steps * stage.batch, rng).reshape(steps, stage.batch)
    wanted = share * stage.batch
    of_batch = np.floor(wanted + rng.random(steps)).astype(int).clip(0, stage.batch)
    sick = iter(_stream(np.flatnonzero(positive), int(of_batch.sum()), rng))
    well = iter(_stream(np.flatnonzero(~positive), int((stage.batch - of_batch).sum()), rng))
    rows = [[next(sick) for _ in range(k)] + [next(well) for _ in range(stage.batch - k)] for k in of_batch]
    return np.stack([rng.permutation(row) for row in rows])


def _stream(films: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    turns = [rng.permutation(films) for _ in range(-(-count // len(films)))]
    return np.concatenate([*turns, np.zeros(0, np.int64)])[:count].astype(np.int64)


def batches(
    data: PreparedSet, films: list[FilmRow], plan: NDArray[np.int64], grid: int, pin: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and truths (N, 1, grid, grid) uint8 of each row of `plan`, read ahead by a thread of its own. `grid`: px, a
    prepared size; `pin`: into pinned memory. Raises what reading raises: OSError, ValueError, RuntimeError."""
    ready: queue.Queue[tuple[Tensor, Tensor] | BaseException] = queue.Queue(BATCHES_AHEAD)
    stopped = threading.Event()

    def offer(item: tuple[Tensor, Tensor] | BaseException) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                pass

    def read() -> None:
        try:
            for chosen in plan:
                if stopped.is_set():
                    return
                images, truths = (torch.from_numpy(a)[:, None] for a in data.read([films[i] for i in chosen], grid))
                offer((images.pin_memory(), truths.pin_memory()) if pin else (images, truths))
        except (OSError, ValueError, RuntimeError) as error:
            offer(error)  # raised by the loop that waits for the batch

    thread = threading.Thread(target=read, name="reader", daemon=True)
    thread.start()
    try:
        for _ in plan:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def learning_rate(top: float, final: float, warmup_steps: int, step: int, done: float) -> float:
    """Linear warm-up over the first steps of a stage, then half a cosine down to `final`. `done`: share of the stage, 0 to
    1."""
    warm = min(1.0, (step + 1) / max(warmup_steps, 1))
    falling = 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
    return warm * (final + (top - final) * falling)


def optimiser_for(network: nn.Module, how: Optimiser) -> torch.optim.Optimizer:
    """Adam or AdamW over the parameters that are trained, in groups of `role` encoder and decoder; parameters of one dimension
    (BatchNorm, biases) have no weight decay."""
    trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    encoder = [p for n, p in trained if ".encoder." in n and p.ndim > 1]
    decoder = [p for n, p in trained if ".encoder." not in n and p.ndim > 1]
    plain = [p for n, p in trained if ".encoder." not in n and p.ndim <= 1]
    plain_encoder = [p for n, p in trained if ".encoder." in n and p.ndim <= 1]
    groups = [
        {"params": encoder, "role": "encoder", "weight_decay": how.weight_decay},
        {"params": decoder, "role": "decoder", "weight_decay": how.weight_decay},
        {"params": plain_encoder, "role": "encoder", "weight_decay": 0.0},
        {"params": plain, "role": "decoder", "weight_decay": 0.0},
    ]
    kind = torch.optim.Adam if how.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=0.0)


class MovingAverage:
    """Exponential moving average of every floating point tensor of a network, BatchNorm statistics included. With decay 0 it
    equals the network."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.tensors = {name: t.detach().clone() for name, t in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Include the network's present tensors."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))  # a young average forgets its random start
        now = network.state_dict()
        moving = [name for name, t in now.items() if t.is_floating_point()]
        # All at once: a thousand small kernels would cost a GPU a tenth of a step.
        torch._foreach_lerp_([self.tensors[n] for n in moving], [now[n] for n in moving], 1 - decay)
        for name in now.keys() - set(moving):  # counters
            self.tensors[name].copy_(now[name])


class WaitTimer:
    """Measures the share of time spent waiting for data."""

    def __init__(self) -> None:
        self.began, self.seconds = time.perf_counter(), 0.0

    def timed(self, source: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The items of `source`; the time until each is there counts as waiting."""
        while True:
            asked = time.perf_counter()
            item = next(source, None)
            self.seconds += time.perf_counter() - asked
            if item is None:
                return
            yield item

    @property
    def share(self) -> float:
        """Share of the time since the start, 0 to 1."""
        return self.seconds / max(time.perf_counter() - self.began, 1e-9)
