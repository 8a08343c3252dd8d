"""Recipes: the settings of a training, as frozen values read from a TOML file. An unknown or missing key is an error that names
it."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).with_name("recipes")


class RecipeError(ValueError):
    """The recipe is not valid; the message names the key."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of `train.fit.losses.total_loss`."""

    bce: float = 3.0
    dice: float = 1.0
    image: float = 0.1  # of the image-level head
    lovasz: float = 0.0
    focal: float = 0.0
    film_dice: float = 0.0  # mean over the positive films: a small lesion weighs as much as a large one


@dataclass(frozen=True)
class Augmentation:
    """Probabilities, and half-widths of uniform distributions around no change; used by `train.fit.augment`."""

    flip: float = 0.5  # chance; left and right only: lungs do not hang upside down
    affine: float = 1.0  # chance of shift, scale and rotation together
    shift: float = 0.06  # of the side
    scale: float = 0.2
    rotation_degrees: float = 20.0
    constant_shift: bool = False  # fault of the published recipe: always +shift, right and down
    warp: float = 0.3  # chance of one of elastic, grid, optical
    elastic: float = 0.02  # of the side
    grid: float = 0.03  # of the side
    optical: float = 0.1
    tone: float = 0.8  # chance of contrast, gamma and window together
    gamma: float = 0.4  # of the logarithm
    contrast: float = 0.2
    window: float = 0.1  # of the grey scale, each end
    detail: float = 0.0  # largest lift of local contrast, as vendors' software does
    blur: float = 0.0  # largest share of the blurred film
    noise: float = 0.02  # largest standard deviation
    dropout: float = 0.0  # chance of up to three blank rectangles


@dataclass(frozen=True)
class Stage:
    """A part of the training at one size."""

    size: int  # px: the grid that the film is brought to, a multiple of 32
    batch: int  # of all processes together
    epochs: int
    rate: float  # of decoder and heads; warm-up, then half a cosine down to `final_rate`
    encoder_rate: float
    final_rate: float = 1e-6
    crop: int = 0  # px of a random square of that grid; 0: the whole film
    steps: int = 0  # of an epoch; 0: as many as the training films fill
    positives: tuple[float, float] = (0.0, 0.0)  # share of a batch in the first and the last epoch; 0: as they come
    minutes: float = 0.0  # the stage ends early, its schedule with it; 0: no limit (and a resumed run is bit-equal)
    loss: LossWeights | None = None  # instead of the recipe's


@dataclass(frozen=True)
class Optimiser:
    """Optimiser, regularisation and averaging of weights."""

    name: str = "adamw"  # or "adam"
    weight_decay: float = 1e-2
    warmup_steps: int = 200
    clip: float = 1.0  # of the gradient's norm; 0: off
    ema: float = 0.999  # decay of the averaged weights per step; 0: none, the weights themselves are validated
    drop_connect: float = 0.2
    batchnorm_momentum: float = 0.01


@dataclass(frozen=True)
class Recipe:
    """All settings of a training."""

    name: str
    description: str
    seed: int
    mean: float  # the network sees (x - mean) / std of an image in [0, 1]
    std: float
    network: dict[str, Any]
    stages: tuple[Stage, ...]
    optimiser: Optimiser = field(default_factory=Optimiser)
    loss: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: str = "bf16"  # or "fp16" (CUDA), "fp32"; losses are always fp32
    channels_last: bool = True
    compile: bool = False
    validation_threshold: tuple[float, ...] = (0.15, 0.3, 0.5)  # an epoch is validated with the best of these
    operating_point: str = "clinical"  # the default of the artifact
    flips: bool = True  # of the artifact: average with the mirrored film


def load_recipe(name_or_path: str) -> Recipe:
    """A recipe of `train/fit/recipes` by name, or any TOML file by path. Raises RecipeError."""
    path = recipe_path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise RecipeError(f"{path} does not exist; recipes here: {known}, or give the path of a TOML file")
    try:
        return parse_recipe(tomllib.loads(path.read_text()), path.name)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path.name}: {error}") from error


def recipe_path(name_or_path: str) -> Path:
    """The file of a recipe, given by name or by path."""
    return RECIPES / f"{name_or_path}.toml" if "." not in name_or_path else Path(name_or_path)


def parse_recipe(table: dict[str, Any], where: str) -> Recipe:
    """The recipe of a parsed TOML file; `where` names it in messages. Raises RecipeError."""
    parts = {"optimiser": Optimiser, "loss": LossWeights, "augmentation": Augmentation}
    built = {key: _build(kind, table[key], f"{where}: [{key}]") for key, kind in parts.items() if key in table}
    stages = tuple(_stage(stage, f"{where}: [[stages]]") for stage in table.get("stages", ()))
    recipe: Recipe = _build(Recipe, {**table, **built, "stages": stages}, where)
    _check(recipe, where)
    return recipe


def shortened(recipe: Recipe, minutes: float) -> Recipe:
    """The recipe with a limit of minutes, divided over its stages in proportion to their epochs."""
    whole = sum(stage.epochs for stage in recipe.stages)
    stages = tuple(dataclasses.replace(s, minutes=minutes * s.epochs / whole) for s in recipe.stages)
    return dataclasses.replace(recipe, stages=stages)


def _stage(table: dict[str, Any], where: str) -> Stage:
    loss = _build(LossWeights, table["loss"], f"{where} loss") if "loss" in table else None
    return _build(Stage, {**table, "loss": loss}, where)  # type: ignore[no-any-return]


def _build(kind: Any, table: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(table.keys() - known.keys()):
        raise RecipeError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    needed = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(needed - table.keys()):
        raise RecipeError(f"{where}: {missing[0]!r} is missing")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    for name, value in values.items():
        _fits(value, known[name].type, f"{where}: {name}")
    return kind(**values)


def _fits(value: Any, wanted: Any, where: str) -> None:
    """Check the type of a TOML value: an integer is accepted for a float, no other type for another. Raises RecipeError."""
    simple = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}.get(str(wanted))
    if simple and (not isinstance(value, simple) or (isinstance(value, bool) and wanted != "bool")):
        raise RecipeError(f"{where}: {value!r} is no {wanted}")
    if str(wanted).startswith("tuple[float") and not (isinstance(value, tuple) and all(type(v) in (int, float) for v in value)):
        raise RecipeError(f"{where}: {value!r} is no list of numbers")


def _check(recipe: Recipe, where: str) -> None:
    sides = [side for stage in recipe.stages for side in (stage.size, stage.crop or stage.size)]
    problems = [
        (bool(recipe.stages), "no [[stages]]"),
        (isinstance(recipe.network.get("encoder"), str), "network.encoder is missing"),
        (recipe.network.get("in_channels") == 1, "network.in_channels is 1: films are grey"),
        (recipe.precision in ("bf16", "fp16", "fp32"), f"precision {recipe.precision!r} is not bf16, fp16 or fp32"),
        (recipe.optimiser.name in ("adam", "adamw"), f"optimiser.name {recipe.optimiser.name!r} is not adam or adamw"),
        (all(side >= 32 and side % 32 == 0 for side in sides), "size and crop of a stage are multiples of 32"),
        (all(stage.crop <= stage.size for stage in recipe.stages), "a crop is no larger than its stage's size"),
        (recipe.std > 0, "std is above 0"),
        (all(0 <= p <= 1 for stage in recipe.stages for p in stage.positives), "positives lie between 0 and 1"),
        (all(stage.batch > 0 and stage.epochs > 0 for stage in recipe.stages), "batch and epochs are above 0"),
    ]
    for good, message in problems:
        if not good:
            raise RecipeError(f"{where}: {message}")
