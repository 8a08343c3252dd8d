"""`python -m train`: fit a recipe, export an artifact, evaluate it in the exam."""

from __future__ import annotations

import json
from pathlib import Path

import click

DEMO = Path("segmenter/artifacts/demo")


@click.group()
def main() -> None:
    """Make the artifacts that the segmenter loads."""


@main.command()
@click.option("--recipe", default="phantom", show_default=True, help="Name in train/recipes, or a TOML file.")
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder for drawn films.")
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for checkpoints; resumes if one is there.",
)
@click.option("--threads", default=0, help="CPU threads and drawing processes; 0: as many as there are cores.")
@click.option(
    "--encoder",
    type=click.Path(path_type=Path, exists=True),
    help="Local safetensors file of encoder weights.",
)
@click.option("--encoder-sha256", help="Its digest; required with --encoder.")
def fit(recipe: str, cache: Path, run: Path, threads: int, encoder: Path | None, encoder_sha256: str | None) -> None:
    """Train, or go on with an interrupted training."""
    from segmenter.artifact import file_sha256
    from train.config import RecipeError, load_recipe
    from train.fit import fit as train

    if encoder is not None and file_sha256(encoder) != encoder_sha256:
        raise click.UsageError(f"{encoder} does not have the sha256 given with --encoder-sha256")
    try:
        settings = load_recipe(recipe)
    except RecipeError as error:
        raise click.UsageError(str(error)) from error
    train(settings, cache, run, processes=_cores(threads), encoder=encoder)


@main.command()
@click.option("--recipe", default="phantom", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True, help="A run, or one of its stages.")
@click.option("--out", type=click.Path(path_type=Path), default=DEMO, show_default=True)
@click.option("--size", type=int, help="Input size of the artifact [default: of the last stage].")
@click.option("--films", type=int, help="Validation films that choose the thresholds [default: all of the recipe].")
def export(recipe: str, cache: Path, run: Path, out: Path, size: int | None, films: int | None) -> None:
    """Write the averaged weights as an artifact, with thresholds from validation films."""
    from train.config import load_recipe
    from train.export import export as write

    settings = load_recipe(recipe)
    artifact = write(
        settings,
        cache,
        run,
        out,
        size=size or settings.stages[-1].size,
        films=films or settings.films.validation_count,
        processes=_cores(0),
    )
    click.echo(f"{out}: {artifact.manifest.name} {artifact.manifest.version}, weights {artifact.sha256}")


@main.command()
@click.option("--artifact", type=click.Path(path_type=Path, exists=True), default=DEMO, show_default=True)
@click.option("--films", type=int, help="Only the first so many films of the exam [default: all].")
@click.option("--record", is_flag=True, help="Write the figures into manifest and card.")
@click.option("--quiet", is_flag=True, help="No line per film.")
def evaluate(artifact: Path, films: int | None, record: bool, quiet: bool) -> None:
    """Take the exam through the whole serving path and print the figures as JSON."""
    from train.evaluate import evaluate as examine
    from train.exam import EXAM
    from train.export import record_exam

    tell = (lambda line: None) if quiet else (lambda line: click.echo(line, err=True))
    report = examine(artifact, films or EXAM["films"], tell)
    if record:
        record_exam(artifact, report)
    click.echo(json.dumps(report, indent=2))


def _cores(threads: int) -> int:
    import os

    import torch

    cores = threads or os.cpu_count() or 1
    torch.set_num_threads(cores)
    return cores
