"""Recipes: what `fit` does, as frozen values read from a TOML file. An unknown or missing key is an error
with its name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).with_name("recipes")


class RecipeError(ValueError):
    """The recipe can not be read as it stands; the message names the key."""


@dataclass(frozen=True)
class Films:
    """Which phantoms: seeds from `first_seed` on. Training and validation never share one, and the exam has
    its own."""

    cache_size: int  # px of the cached grid, at least the largest stage
    first_seed: int
    count: int
    validation_first_seed: int
    validation_count: int


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one size. It ends after `steps` or `minutes`, whichever comes first."""

    size: int
    batch: int
    steps: int
    minutes: float


@dataclass(frozen=True)
class Optimiser:
    learning_rate: float
    final_learning_rate: float
    weight_decay: float
    warmup_steps: int
    clip: float  # of the gradient's norm
    ema: float  # decay of the averaged weights per step
    drop_connect: float
    batchnorm_momentum: float


@dataclass(frozen=True)
class LossWeights:
    bce: float
    dice: float
    image: float


@dataclass(frozen=True)
class Augmentation:
    """Standard deviations or largest values; `train.augment` says of what."""

    scale: float
    rotation_degrees: float
    shift: float
    gamma: float
    window: float
    noise: float
    blur: float


@dataclass(frozen=True)
class Recipe:
    name: str
    description: str
    seed: int
    mean: float
    std: float
    network: dict[str, Any]
    films: Films
    stages: tuple[Stage, ...]
    optimiser: Optimiser
    loss: LossWeights
    augmentation: Augmentation


def load_recipe(name_or_path: str) -> Recipe:
    """A recipe of `train/recipes` by name, or any TOML file by path. Raises RecipeError."""
    path = RECIPES / f"{name_or_path}.toml" if "." not in name_or_path else Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise RecipeError(f"{path} does not exist; recipes here: {known}, or give the path of a TOML file")
    table = tomllib.loads(path.read_text())
    parts = {"films": Films, "optimiser": Optimiser, "loss": LossWeights, "augmentation": Augmentation}
    built = {key: _build(kind, table.get(key, {}), f"{path.name}: [{key}]") for key, kind in parts.items()}
    stages = tuple(_build(Stage, stage, f"{path.name}: [[stages]]") for stage in table.get("stages", ()))
    return _build(Recipe, {**table, **built, "stages": stages}, path.name)


def _build(kind: Any, table: dict[str, Any], where: str) -> Any:
    names = {f.name for f in fields(kind)}
    if unknown := sorted(table.keys() - names):
        raise RecipeError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(names))}")
    if missing := sorted(names - table.keys()):
        raise RecipeError(f"{where}: {missing[0]!r} is missing")
    return kind(**table)
