"""Training, from the first film to the last checkpoint. Read it from top to bottom: that is the order of
events."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from segmenter.network import PneumothoraxNetwork, build_network
from train import checkpoint
from train.config import Recipe, Stage
from train.films import fill_cache, load_films
from train.loop import Average, batches, learning_rate
from train.losses import total_loss

SAVE_EVERY_SECONDS = 240
LOG_EVERY_STEPS = 20
PRIOR_LOGIT = -4.0


def fit(recipe: Recipe, cache: Path, run: Path, *, processes: int = 1, encoder: Path | None = None) -> Path:
    """Train and leave the checkpoint in `run`; goes on where an interrupted run stopped. Returns `run`.

    `encoder`: a local safetensors file of encoder weights to start from, loaded strictly; none is ever
    downloaded.
    """
    torch.manual_seed(recipe.seed)
    films = recipe.films
    train = load_films(fill_cache(cache, films.cache_size, films.first_seed, films.count, processes))
    network = prepared(build_network(recipe.network), recipe, encoder)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=recipe.optimiser.weight_decay)
    average = Average(network, recipe.optimiser.ema)
    progress = resumed(run, network, average, optimiser)

    for index, stage in enumerate(recipe.stages):
        if index < progress.stage:
            continue
        if index > progress.stage:
            progress.stage, progress.stage_step, progress.stage_seconds = index, 0, 0.0
        source = batches(train, stage.size, stage.batch, recipe.augmentation, (recipe.seed, index, progress.step))
        saved = time.monotonic()
        while progress.stage_step < stage.steps and progress.stage_seconds < stage.minutes * 60:
            started = time.monotonic()
            rate = learning_rate(recipe.optimiser, progress.step, share_done(recipe, progress))
            parts = step(network, optimiser, next(source), recipe, rate)
            average.update(network)
            progress.step += 1
            progress.stage_step += 1
            progress.stage_seconds += time.monotonic() - started
            if progress.stage_step % LOG_EVERY_STEPS == 1:
                report(progress, stage, rate, parts)
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                save(run, network, average, optimiser, progress, recipe)
                saved = time.monotonic()
        save(run, network, average, optimiser, progress, recipe)
        save(run / f"stage-{index}-{stage.size}", network, average, optimiser, progress, recipe)
    return run


def prepared(network: PneumothoraxNetwork, recipe: Recipe, encoder: Path | None) -> PneumothoraxNetwork:
    """In training mode, with the recipe's regularisation, and with the encoder's weights from a file if there
    is one."""
    if encoder is not None:
        from safetensors.torch import load_file

        network.unet.encoder.load_state_dict(load_file(encoder), strict=True)
    network.unet.encoder._drop_connect_rate = recipe.optimiser.drop_connect
    # Start from what is true of most pixels: no pneumothorax (.008 of a positive film, none of the others).
    # The image head hears the mask's strongest spot, so its own zero moves with it.
    nn.init.constant_(network.unet.segmentation_head[0].bias, PRIOR_LOGIT)
    nn.init.constant_(network.evidence.bias, -PRIOR_LOGIT * float(network.evidence.weight.detach()))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.optimiser.batchnorm_momentum
    return network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def step(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: tuple[torch.Tensor, torch.Tensor],
    recipe: Recipe,
    rate: float,
) -> dict[str, float]:
    """One batch forwards and backwards; the loss by its parts."""
    image, truth = batch
    for group in optimiser.param_groups:
        group["lr"] = rate
    x = ((image - recipe.mean) / recipe.std).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        mask_logits, image_logits = network(x)
    parts = total_loss(mask_logits, image_logits, truth, recipe.loss)
    optimiser.zero_grad(set_to_none=True)
    parts["total"].backward()
    nn.utils.clip_grad_norm_(network.parameters(), recipe.optimiser.clip)
    optimiser.step()
    return {name: float(value.detach()) for name, value in parts.items()}


def share_done(recipe: Recipe, progress: checkpoint.Progress) -> float:
    """Share of the run's minutes, 0..1; a stage that ends by its steps counts as if its minutes were over."""
    whole = sum(stage.minutes for stage in recipe.stages)
    now = recipe.stages[progress.stage]
    before = sum(stage.minutes for stage in recipe.stages[: progress.stage])
    within = max(progress.stage_seconds / (now.minutes * 60), progress.stage_step / now.steps)
    return (before + now.minutes * within) / whole


def resumed(run: Path, network: nn.Module, average: Average, optimiser: torch.optim.Optimizer) -> checkpoint.Progress:
    progress = checkpoint.load_progress(run)
    if progress is None:
        return checkpoint.Progress()
    network.load_state_dict(checkpoint.load(run, "network"))
    average.tensors, average.steps = checkpoint.load(run, "ema"), progress.step
    checkpoint.restore_optimiser(optimiser, checkpoint.load(run, "optimiser"))
    return progress


def save(
    folder: Path,
    network: nn.Module,
    average: Average,
    optimiser: torch.optim.Optimizer,
    progress: checkpoint.Progress,
    recipe: Recipe,
) -> None:
    tensors = {
        "network": network.state_dict(),
        "ema": average.tensors,
        "optimiser": checkpoint.optimiser_tensors(optimiser),
    }
    checkpoint.save(folder, tensors, progress, {"recipe": recipe.name, "size": recipe.stages[progress.stage].size})


def report(progress: checkpoint.Progress, stage: Stage, rate: float, parts: dict[str, float]) -> None:
    losses = " ".join(f"{name} {value:.4f}" for name, value in parts.items())
    seconds = progress.stage_seconds / progress.stage_step
    print(f"step {progress.step} size {stage.size} rate {rate:.2e} {losses} {seconds:.2f} s/step", flush=True)
