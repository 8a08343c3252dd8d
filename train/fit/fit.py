"""Training, from the first film to the last checkpoint, in the order of events."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segmenter.model.network import PneumothoraxNetwork, build_network
from train.data.dataset import FilmRow, PreparedSet
from train.fit import checkpoint, distributed, encoder
from train.fit.augment import augment, resize_pair
from train.fit.distributed import ProcessGroup
from train.fit.journal import ENVIRONMENT_FILE, Journal, describe_environment, time_left, write_json
from train.fit.loop import MovingAverage, WaitTimer, batches, epoch_plan, learning_rate, optimiser_for, steps_per_epoch
from train.fit.losses import total_loss
from train.fit.recipe import Recipe, Stage
from train.fit.validation import contact_sheet, validate
from train.report import pictures

SAVE_EVERY_SECONDS = 240
PRINT_EVERY_SECONDS = 20
RECIPE_FILE = "recipe.toml"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class RunError(ValueError):
    """The run cannot begin or be resumed; the message tells what to do."""


@dataclass(frozen=True)
class FitOptions:
    """The options of `fit` besides the recipe."""

    data: Path
    run: Path
    recipe_file: Path
    fold: int = 0  # held out
    resume: bool = False
    device: str = "auto"
    imagenet: Path | None = None
    imagenet_sha256: str = ""
    start: Path | None = None  # an artifact to start from


@dataclass
class State:
    """All that a checkpoint contains."""

    network: PneumothoraxNetwork
    average: MovingAverage
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: checkpoint.Progress

    def groups(self) -> dict[str, checkpoint.Tensors]:
        """The tensors by file of the checkpoint and by name."""
        scaler = {k: torch.tensor(v) for k, v in self.scaler.state_dict().items()}
        groups = {"network": self.network.state_dict(), "ema": self.average.tensors, "scaler": scaler}
        return {**groups, "optimiser": checkpoint.optimiser_tensors(self.optimiser)}


@dataclass(frozen=True)
class Run:
    """A run: its fixed parts, and `state`, which training changes."""

    recipe: Recipe
    options: FitOptions
    group: ProcessGroup
    data: PreparedSet
    train: list[FilmRow]
    held_out: list[FilmRow]
    state: State
    network: nn.Module  # of the state, wrapped for several processes and compiled
    journal: Journal | None  # None on all processes but the first


def fit(recipe: Recipe, options: FitOptions) -> Path:
    """Train one fold; write checkpoints, metrics.csv and pictures into the run's folder. Returns the folder.

    Raises RunError, WeightsError, DataError, ArtifactError (of `options.start`).
    """
    if recipe.compile:
        need_compiler(options.recipe_file)
    group = distributed.start_process_group(options.device)
    data = PreparedSet(options.data)
    train, held_out = data.fold(options.fold)
    open_run_folder(recipe, options, data, group)
    state = restore_state(options.run, initial_state(recipe, options, group), group)
    network = group.wrapped(state.network)
    if recipe.compile:
        network = torch.compile(network, dynamic=False)  # type: ignore[assignment]  # one graph per stage, each of fixed size
    journal = Journal(options.run, state.progress.step) if group.is_first else None
    run = Run(recipe, options, group, data, train, held_out, state, network, journal)

    at = state.progress
    for index, stage in enumerate(recipe.stages):
        if index < at.stage:
            continue  # done before this run was resumed
        while at.epoch < stage.epochs and agreed_share(run, stage) < 1:
            row = train_epoch(run, index, stage)
            at.epoch, at.step_of_epoch = at.epoch + 1, 0
            if row and group.is_first:
                end_epoch(run, stage, row)
            group.wait()
        at.stage, at.epoch, at.stage_step, at.stage_seconds = index + 1, 0, 0, 0.0

    if journal is not None:
        checkpoint.save(options.run / f"step-{at.step:07}", state.groups(), at)
        journal.close()
    group.close()
    return options.run


def need_compiler(recipe_file: Path) -> None:
    """Raises RunError without a C++ compiler, which torch.compile needs: else the first step would fail."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:  # the one that torch calls
        raise RunError(f"{recipe_file} says compile = true and there is no C++ compiler: install g++, or set compile = false")


def train_epoch(run: Run, index: int, stage: Stage) -> dict[str, float]:
    """The remaining steps of an epoch. Returns mean losses, speed (images per second) and the share of time spent waiting for
    data; empty when no step was left. Raises RunError."""
    at, group, grid = run.state.progress, run.group, run.data.grid_for(stage.size)
    positive = np.array([row.positive for row in run.train])
    plan = epoch_plan(positive, stage, at.epoch, (run.recipe.seed, index))[at.step_of_epoch :, group.rank :: group.size]
    waiting, sums, first = WaitTimer(), dict[str, torch.Tensor](), at.step
    saved = printed = time.monotonic()
    for images, truths in waiting.timed(batches(run.data, run.train, plan, grid, pin=group.device.type == "cuda")):
        started = time.perf_counter()
        if (done := agreed_share(run, stage)) >= 1:
            break
        set_rates(run.state.optimiser, stage, run.recipe, at.stage_step, done)
        seed = (run.recipe.seed, at.step, group.rank)
        parts = train_step(run.network, run.state, stage, run.recipe, images, truths, seed, group.device)
        for name, part in parts.items():
            sums[name] = sums[name] + part if name in sums else part
        at.step, at.stage_step, at.step_of_epoch = at.step + 1, at.stage_step + 1, at.step_of_epoch + 1
        at.stage_seconds += time.perf_counter() - started
        if group.is_first and time.monotonic() - printed > PRINT_EVERY_SECONDS:
            printed = time.monotonic()
            check_losses(run, sums)
            print_progress(run, stage, parts, waiting.share)
        if group.is_first and time.monotonic() - saved > SAVE_EVERY_SECONDS:
            saved = time.monotonic()
            check_losses(run, sums)
            checkpoint.save_step(run.options.run, run.state.groups(), at)
    count = at.step - first
    if not count:
        return {}
    check_losses(run, sums)
    speed = count * stage.batch / max(time.perf_counter() - waiting.began, 1e-9)
    losses = {f"loss_{name}": float(total) / count for name, total in sums.items()}
    return {**losses, "images_per_second": speed, "waiting_share": waiting.share}


def check_losses(run: Run, sums: dict[str, torch.Tensor]) -> None:
    """Raises RunError for losses that are not finite, before a checkpoint is saved: so the last checkpoint stays usable."""
    if lost := [name for name, total in sums.items() if not torch.isfinite(total)]:
        raise RunError(
            f"step {run.state.progress.step}: the loss {', '.join(lost)} is not finite; continue from the last checkpoint "
            "with --resume, and if it happens again start anew with lower rates, or with precision bf16 or fp32"
        )


def open_run_folder(recipe: Recipe, options: FitOptions, data: PreparedSet, group: ProcessGroup) -> None:
    """Create the run's folder with recipe and environment, or check that an existing one has the same. Raises RunError."""
    sha256s = {"data_sha256": data.digest, "folds_sha256": data.about["folds_sha256"]}
    about = {"recipe": recipe.name, "fold": options.fold, **sha256s}
    known = options.run / ENVIRONMENT_FILE
    if few := [stage.batch for stage in recipe.stages if stage.batch < group.size]:
        raise RunError(f"{group.size} processes share a batch of {few[0]}; start fewer, or make the batch of the stage larger")
    if checkpoint.steps(options.run):
        if not options.resume:
            raise RunError(f"{options.run} contains a run already; continue it with --resume, or name another with --run")
        before = run_notes(options.run)
        if differing := [k for k, v in about.items() if before.get(k) != v]:
            raise RunError(f"{options.run} was begun with another {', '.join(differing)}; resume it as it was begun")
        if (options.run / RECIPE_FILE).read_text() != options.recipe_file.read_text():
            raise RunError(f"{options.recipe_file} differs from {options.run / RECIPE_FILE}; resume with that file as --recipe")
    elif group.is_first:
        options.run.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.recipe_file, options.run / RECIPE_FILE)
        start = encoder.artifact_name(options.start) if options.start else ""
        source = {"imagenet_sha256": options.imagenet_sha256, "start": start}
        write_json(known, {**about, **source, "kind": data.about["kind"], **describe_environment(group.device)})
    group.wait()


def run_notes(run: Path) -> dict[str, Any]:
    """The environment that the run was begun with. Raises RunError for a folder that is not a run."""
    try:
        notes: dict[str, Any] = json.loads((run / ENVIRONMENT_FILE).read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{run} is no run, it has no {ENVIRONMENT_FILE}; name a folder that `fit --run` wrote") from error
    return notes


def initial_state(recipe: Recipe, options: FitOptions, group: ProcessGroup) -> State:
    """Network, optimiser and progress before the first step, equal on every process. Raises RunError, WeightsError,
    ArtifactError."""
    torch.manual_seed(recipe.seed)
    try:
        network = build_network(recipe.network)
    except (KeyError, ValueError) as error:
        raise RunError(f"[network] of {options.recipe_file}: {error}") from error
    encoder.initialise_heads(network, any((stage.loss or recipe.loss).image for stage in recipe.stages))
    if options.imagenet is not None:
        encoder.load_imagenet(network, options.imagenet, options.imagenet_sha256, recipe.std)
    if options.start is not None:
        encoder.load_start(network, options.start)
    network.unet.encoder._drop_connect_rate = recipe.optimiser.drop_connect
    for name in ("_conv_head", "_bn1"):  # of the encoder's classifier, unused here; DDP would wait for their gradients
        getattr(network.unet.encoder, name).requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.optimiser.batchnorm_momentum
    network = network.train().to(group.device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scaler = torch.amp.GradScaler(group.device.type, enabled=recipe.precision == "fp16" and group.device.type == "cuda")
    average, optimiser = MovingAverage(network, recipe.optimiser.ema), optimiser_for(network, recipe.optimiser)
    return State(network, average, optimiser, scaler, checkpoint.Progress())


def restore_state(run: Path, state: State, group: ProcessGroup) -> State:
    """The initial state with the last complete checkpoint loaded into it, if there is one."""
    folders = checkpoint.steps(run)
    if not folders:
        return state
    last = folders[-1]
    state.progress = checkpoint.load_progress(last)
    state.network.load_state_dict(checkpoint.load(last, "network"))
    for name, tensor in checkpoint.load(last, "ema").items():
        state.average.tensors[name].copy_(tensor)  # in place: keeps the memory layout of the network
    state.average.steps = state.progress.step
    checkpoint.restore_optimiser(state.optimiser, checkpoint.load(last, "optimiser"))
    if state.scaler.is_enabled():
        state.scaler.load_state_dict({k: t.item() for k, t in checkpoint.load(last, "scaler").items()})
    return state


def train_step(
    network: nn.Module,
    state: State,
    stage: Stage,
    recipe: Recipe,
    images: torch.Tensor,
    truths: torch.Tensor,
    seed: tuple[int, int, int],
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """One batch forwards and backwards. `images`, `truths` (N, 1, S, S) uint8. Returns the parts of the loss, float64 scalars
    that stay on the device: reading them would wait for every step. All random numbers follow from `seed`."""
    number = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(number)  # of dropout and drop connect
    image, truth = (part.to(device, non_blocking=True).float() for part in (images, truths))
    image, truth = resize_pair(image / 255, truth, stage.size)
    image, truth = augment(image, truth, stage.crop or stage.size, recipe.augmentation, number)
    x = (image - recipe.mean) / recipe.std
    if recipe.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, DTYPES[recipe.precision], enabled=recipe.precision != "fp32"):
        mask_logits, image_logits = network(x)
    parts = total_loss(mask_logits, image_logits, truth, stage.loss or recipe.loss)
    state.optimiser.zero_grad(set_to_none=True)
    state.scaler.scale(parts["total"]).backward()  # type: ignore[no-untyped-call]
    if recipe.optimiser.clip:
        state.scaler.unscale_(state.optimiser)
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.optimiser.clip)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.average.update(state.network)
    return {name: value.detach().double() for name, value in parts.items()}


def set_rates(optimiser: torch.optim.Optimizer, stage: Stage, recipe: Recipe, stage_step: int, done: float) -> None:
    for group in optimiser.param_groups:
        top = stage.encoder_rate if group["role"] == "encoder" else stage.rate
        group["lr"] = learning_rate(top, min(stage.final_rate, top), recipe.optimiser.warmup_steps, stage_step, done)


def share_done(run: Run, stage: Stage) -> float:
    """Share of the stage that is done, from 0; 1: done. By its steps, or by its minutes where they run out first."""
    at = run.state.progress
    by_steps = at.stage_step / (steps_per_epoch(stage, len(run.train)) * stage.epochs)
    return max(by_steps, at.stage_seconds / (stage.minutes * 60) if stage.minutes else 0.0)


def agreed_share(run: Run, stage: Stage) -> float:
    """`share_done`, equal on every process: where it depends on a clock, the clock of the first process."""
    share = share_done(run, stage)
    return run.group.broadcast(share) if stage.minutes else share


def end_epoch(run: Run, stage: Stage, row: dict[str, float]) -> None:
    """Validate the averaged weights on the held-out films, save them when they are the best, and write metrics and pictures."""
    at, folder, average = run.state.progress, run.options.run, run.state.average
    figures, answers = validate(run.recipe, stage, run.data, run.held_out, average.tensors, run.group.device)
    contact_sheet(run.data, answers, figures, folder / "pictures" / f"epoch-{at.step:07}.png")
    score = figures["mean_positive_dice"] + figures["auroc"]
    if score > at.best_score:
        at.best_score, at.best_step = score, at.step
        checkpoint.save(folder / checkpoint.BEST, {"ema": average.tensors}, at)
    if run.journal is not None:
        where = {"step": at.step, "stage": at.stage, "size": stage.size, "epoch": at.epoch}
        run.journal.epoch({**where, **row, **figures, "best_step": at.best_step})
        pictures.losses(run.journal.rows, folder / "losses.png")
    checkpoint.save_step(folder, run.state.groups(), at)
    figures_text = " ".join(f"{k} {v:.4f}" for k, v in {**row, **figures}.items())
    print(f"stage {at.stage} epoch {at.epoch}/{stage.epochs} step {at.step}: {figures_text}", flush=True)


def print_progress(run: Run, stage: Stage, parts: dict[str, torch.Tensor], waiting: float) -> None:
    """One line: losses, seconds per step, share of waiting and the time left of the stage."""
    at, done = run.state.progress, share_done(run, stage)
    pace = at.stage_seconds / at.stage_step
    losses = " ".join(f"{k} {float(v):.4f}" for k, v in parts.items())
    rest = at.stage_seconds / max(done, 1e-6) * (1 - done)
    print(
        f"step {at.step} ({stage.size} px, stage {at.stage + 1} of {len(run.recipe.stages)}) {losses}, {pace:.2f} s a step, "
        f"waiting {waiting:.0%}; stage: {time_left(rest)}",
        flush=True,
    )
