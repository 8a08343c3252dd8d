"""`python -m train`: from raw films to an artifact that `segmenter` loads.

prepare (or phantoms, then prepare) -> (grow ->) fit -> calibrate -> export -> evaluate, pairs
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

DEMO = Path("segmenter/artifacts/demo")
FOLDER = click.Path(file_okay=False, path_type=Path)
THERE = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

workers = click.option("--workers", default=0, help="Processes; 0: as many as there are cores.")
device = click.option(
    "--device", default="auto", show_default=True, callback=lambda _, __, name: _device(name), help="auto, cpu, cuda or cuda:N."
)
threads = click.option("--threads", default=0, help="CPU threads; 0: as many as there are cores.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group()
def main() -> None:
    """Make the artifacts that the segmenter loads."""


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Errors that the user can correct are reported in one sentence, with exit code 2."""
    from segmenter.errors import SegmenterError
    from train.data.cases import DataError
    from train.fit.encoder import WeightsError
    from train.fit.fit import RunError
    from train.fit.recipe import RecipeError

    try:
        yield
    except (SegmenterError, DataError, RecipeError, WeightsError, RunError, FileNotFoundError) as error:
        raise click.UsageError(str(error)) from error


@main.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for the data set.")
@click.option("--count", default=200, show_default=True, help="Films.")
@click.option("--first-seed", default=10_000, show_default=True, help="Seed of the first film; the exam has other seeds.")
@click.option("--longer-px", default=1024, show_default=True, help="The longer side of a film.")
@click.option(
    "--harder", default=0.6, show_default=True, help="Share of films that are made harder (train/data/harder_phantoms.py)."
)
@click.option("--pairs", is_flag=True, help="Each seed twice: with and without a pneumothorax, without any other difference.")
@click.option("--even-sites", is_flag=True, help="With --pairs: as many at the base of the lung as at its side and its apex.")
@workers
def phantoms(
    out: Path, count: int, first_seed: int, longer_px: int, harder: float, pairs: bool, even_sites: bool, workers: int
) -> None:
    """Draw a data set in the layout of SIIM-ACR: DICOM films and train-rle.csv."""
    from train.data.phantoms import PhantomPlan, write_phantoms

    plan = PhantomPlan(first_seed, count, longer_px, harder, pairs, even_sites)
    try:
        made = write_phantoms(plan, out, _cores(workers))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    alike = f" ({count - made} fewer: a pair whose pneumothorax is not visible is one film)" if made < count else ""
    click.echo(f"{out}: {made} films and train-rle.csv{alike}")


@main.command()
@click.argument("source", type=THERE)
@click.option("--out", type=FOLDER, required=True, help="Folder for the prepared data set; a second call continues.")
@click.option("--csv", "labels", type=FILE, help="Masks [default: stage_2_train.csv or train-rle.csv below SOURCE].")
@click.option("--patients", type=FILE, help="Map of ids to NIH patients (columns Kaggle_ID, NIH_ID) [default: PatientID].")
@click.option("--sizes", default="1024,512", show_default=True, help="Sizes of the arrays in px.")
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Seed of the folds.")
@click.option(
    "--split",
    type=click.Choice(["patient", "image"]),
    default="patient",
    show_default=True,
    help="With image, films of one patient lie in several folds.",
)
@workers
@as_json
def prepare(
    source: Path, out: Path, labels: Path | None, patients: Path | None, sizes: str, folds: int, seed: int, split: str,
    workers: int, as_json: bool,
) -> None:  # fmt: skip
    """Decode SIIM-ACR (DICOM tree and csv, or its PNG export) into arrays, an index and folds by patient."""
    from train.data.prepare import PreparePlan
    from train.data.prepare import prepare as prepare_set

    try:
        sides = tuple(sorted({int(s) for s in sizes.split(",")}, reverse=True))
    except ValueError as error:
        raise click.UsageError("--sizes needs whole numbers, such as 1024,512") from error
    if any(s < 32 or s % 32 for s in sides):
        raise click.UsageError("--sizes needs multiples of 32")
    plan = PreparePlan(source, out, labels, patients, sides, folds, seed, split, _cores(workers))
    with _usage_errors():
        about = prepare_set(plan)
    _print_result(about, as_json, lambda: (
        f"{out}: {about['films']} films of {about['patients']} patients, {about['strata']}, folds of {about['films_of_fold']}; "
        f"left out: {about['left_out'] or 'none'} (report.json)"
    ))  # fmt: skip


@main.command()
@click.option("--weights", type=FILE, required=True, help="Weights of EfficientNet-Lite2: a .pth or safetensors file.")
@click.option("--encoder", default="efficientnet-b4", show_default=True, help="The encoder to grow.")
@click.option("--out", type=NEW_FILE, required=True, help="Safetensors file for `fit --encoder`.")
@click.option("--recipe", default="strong", show_default=True, help="The recipe of `fit`: its mean and std go into the stem.")
@click.option("--films", type=THERE, help="Folder of PNG or JPEG films; 80 of them give BatchNorm's statistics.")
@click.option("--seed", default=0, show_default=True, help="Seed of copies and shares.")
@threads
def grow(weights: Path, encoder: str, out: Path, recipe: str, films: Path | None, seed: int, threads: int) -> None:
    """Make initial weights of an encoder by growing a smaller one that was trained on ImageNet."""
    from train.fit.grow import grow as grow_encoder
    from train.fit.recipe import load_recipe

    _threads(threads)
    with _usage_errors():
        settings = load_recipe(recipe)
        sha256 = grow_encoder(weights, encoder, out, seed=seed, mean=settings.mean, std=settings.std, films=films)
    click.echo(f"{out}: {encoder} for films normalised as by {settings.name}; fit --encoder {out} --encoder-sha256 {sha256}")


@main.command()
@click.option("--recipe", default="strong", show_default=True, help="Name in train/fit/recipes, or a TOML file.")
@click.option("--data", type=THERE, required=True, help="Folder that `prepare` wrote.")
@click.option("--run", type=FOLDER, required=True, help="Folder for checkpoints, metrics.csv and pictures.")
@click.option("--fold", default=0, show_default=True, help="The held-out fold.")
@click.option("--resume", is_flag=True, help="Resume the run in that folder.")
@click.option("--minutes", default=0.0, help="Time limit for all stages together; the schedules end with it.")
@click.option("--encoder", type=FILE, help="Local safetensors file of ImageNet weights (segmentation_models_pytorch's keys).")
@click.option("--encoder-sha256", default="", help="Digest of that file; required with --encoder.")
@click.option("--start", type=THERE, help="An artifact with the initial weights.")
@device
@threads
def fit(
    recipe: str, data: Path, run: Path, fold: int, resume: bool, minutes: float, encoder: Path | None, encoder_sha256: str,
    start: Path | None, device: str, threads: int,
) -> None:  # fmt: skip
    """Train one fold, or resume an interrupted training. Several GPUs: torchrun --nproc-per-node N -m -- train fit ..."""
    from train.fit.fit import FitOptions
    from train.fit.fit import fit as train
    from train.fit.recipe import load_recipe, recipe_path, shortened

    if encoder is not None and not encoder_sha256:
        raise click.UsageError("--encoder needs --encoder-sha256, the digest that the file must have")
    _threads(threads)
    order = FitOptions(data, run, recipe_path(recipe), fold, resume, device, encoder, encoder_sha256, start)
    with _usage_errors():
        settings = load_recipe(recipe)
        train(shortened(settings, minutes) if minutes else settings, order)


@main.command()
@click.option("--data", type=THERE, required=True, help="Folder that `prepare` wrote.")
@click.option("--run", "runs", type=THERE, multiple=True, required=True, help="A run; give one for each fold of an ensemble.")
@click.option("--out", type=FOLDER, required=True, help="Folder for calibration.json and curve.png.")
@click.option("--on", type=THERE, help="A prepared data set that no run has seen, in place of the held-out folds.")
@click.option("--size", default=0, help="Input size of the artifact in px [default: of the last stage].")
@click.option(
    "--weights",
    type=click.Choice(["best", "last", "mean"]),
    default="best",
    show_default=True,
    help="mean: of the last three checkpoints.",
)
@device
@threads
@as_json
def calibrate(
    data: Path,
    runs: tuple[Path, ...],
    out: Path,
    on: Path | None,
    size: int,
    weights: str,
    device: str,
    threads: int,
    as_json: bool,
) -> None:
    """Choose temperature, thresholds and smallest areas by out-of-fold predictions."""
    from train.data.dataset import PreparedSet
    from train.evaluate.calibrate import calibrate as calibrate_runs

    _threads(threads)
    with _usage_errors():
        held = PreparedSet(on) if on else None
        found = calibrate_runs(PreparedSet(data), runs, out, on=held, size=size, which=weights, device=device)
    _print_result(found, as_json, lambda: "\n".join(
        f"{name}: " + ", ".join(f"{k} {v:g}" for k, v in (point | found["figures"].get(name, {})).items())
        for name, point in found["operating_points"].items()
    ))  # fmt: skip


@main.command()
@click.option("--data", type=THERE, required=True, help="Folder that `prepare` wrote.")
@click.option("--run", "runs", type=THERE, multiple=True, required=True, help="As for `calibrate`, in the same order.")
@click.option("--calibration", type=THERE, required=True, help="Folder that `calibrate` wrote.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the artifact.")
@click.option("--name", default="ptx-unet-effb4", show_default=True)
@click.option("--version", default="0.1.0", show_default=True)
@click.option("--flips/--no-flips", default=None, help="Average with the mirrored film [default: as calibrated].")
@click.option("--operating-point", default="", help="Default operating point [default: the recipe's].")
@as_json
def export(
    data: Path, runs: tuple[Path, ...], calibration: Path, out: Path, name: str, version: str, flips: bool | None,
    operating_point: str, as_json: bool,
) -> None:  # fmt: skip
    """Write one run, or an ensemble of one run for each fold, as an artifact with manifest and model card."""
    from train.data.dataset import PreparedSet
    from train.export.export import ArtifactLabel
    from train.export.export import export as export_artifact

    with _usage_errors():
        label = ArtifactLabel(name, version, flips, operating_point)
        artifact = export_artifact(PreparedSet(data), runs, calibration, out, label)
    m = artifact.manifest
    model = {"name": m.name, "version": m.version, "intended_use": m.intended_use, "sha256": artifact.sha256}
    _print_result(
        {"folder": str(out), **model},
        as_json,
        lambda: f"{out}: {m.name} {m.version} ({m.intended_use}), {len(m.weights)} network(s), sha256 {artifact.sha256}",
    )


@main.command()
@click.option("--artifact", type=THERE, default=DEMO, show_default=True)
@click.option(
    "--data", "kind", type=click.Choice(["siim-fold", "ptx498", "phantoms", "folder"]), default="phantoms", show_default=True,
    help="siim-fold: a fold of a prepared data set; phantoms: the frozen exam; folder: films/ and masks/.",
)  # fmt: skip
@click.option("--path", type=THERE, help="The data set; not for phantoms.")
@click.option("--fold", default=0, show_default=True, help="For siim-fold.")
@click.option("--films", type=int, help="Number of films, from the first [default: all].")
@click.option("--out", type=FOLDER, help="Folder for report.json, report.md and pictures [default: none are written].")
@click.option("--operating-point", default="", help="[default: the artifact's]")
@click.option("--published", is_flag=True, help="Also measure as the published figures were (always for ptx498).")
@click.option("--record", is_flag=True, help="Write the figures into manifest and card.")
@device
@threads
@as_json
def evaluate(
    artifact: Path, kind: str, path: Path | None, fold: int, films: int | None, out: Path | None, operating_point: str,
    published: bool, record: bool, device: str, threads: int, as_json: bool,
) -> None:  # fmt: skip
    """Measure a model on films with a known truth, through the whole inference path."""
    from train.evaluate.evaluate import evaluate as evaluate_artifact
    from train.export.export import record_evaluation
    from train.report.tables import markdown

    _threads(threads)
    words = ["python -m train evaluate --artifact DIR --data", kind, *([] if kind == "phantoms" else ["--path DIR"])]
    words += [f"--fold {fold}"] * (kind == "siim-fold") + [f"--films {films}"] * bool(films)
    published = published or kind == "ptx498"
    with _usage_errors():
        report = evaluate_artifact(
            artifact, _source(kind, path, fold, films), out, command=" ".join(words + ["--published"] * published),
            operating_point=operating_point, device=device, published=published,
        )  # fmt: skip
        if record:
            name = {"phantoms": "exam", "siim-fold": f"fold-{fold}"}.get(kind, kind)
            record_evaluation(artifact, name, report)
    _print_result(report, as_json, lambda: markdown(report))


@main.command()
@click.option("--artifact", type=THERE, default=DEMO, show_default=True)
@click.option("--count", type=click.IntRange(1), default=50, show_default=True, help="Number of pairs.")
@click.option("--first-seed", type=click.IntRange(0), default=7_000_000, show_default=True, help="Seed of the first pair.")
@click.option("--operating-point", default="", help="[default: the artifact's]")
@device
@threads
@as_json
def pairs(
    artifact: Path, count: int, first_seed: int, operating_point: str, device: str, threads: int, as_json: bool
) -> None:  # fmt: skip
    """Measure how many answers change between phantoms of one seed with and without a pneumothorax, and with and without a
    chest tube."""
    from train.evaluate.counterfactual import measure_pairs, summary

    _threads(threads)
    with _usage_errors():
        report = measure_pairs(artifact, count, first_seed, operating_point=operating_point, device=device)
    _print_result(report, as_json, lambda: summary(report))


def _source(kind: str, path: Path | None, fold: int, films: int | None) -> Any:
    """Raises DataError, click.UsageError."""
    from train.evaluate import sources
    from train.evaluate.exam import EXAM

    if kind == "phantoms":
        return sources.Exam(min(films or EXAM["films"], EXAM["films"]))
    if path is None:
        raise click.UsageError(f"--data {kind} needs --path")
    source = {"siim-fold": lambda: sources.siim_fold(path, fold), "ptx498": lambda: sources.ptx498(path)}.get(
        kind, lambda: sources.any_folder(path)
    )()
    source.cases = source.cases[:films]
    return source


def _print_result(value: dict[str, Any], as_json: bool, sentence: Callable[[], str]) -> None:
    click.echo(json.dumps(value, indent=2) if as_json else sentence())


def _device(name: str) -> str:
    """The name of a device. Raises click.BadParameter for one that this machine does not have."""
    import torch

    try:
        found = torch.device("cpu" if name == "auto" else name)
    except RuntimeError as error:
        raise click.BadParameter(f"{name!r} is not a device; choose auto, cpu, cuda or cuda:N") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise click.BadParameter(
            f"{name!r} is not here: torch sees {torch.cuda.device_count()} GPUs; auto takes one if there is any"
        )
    return name


def _cores(wanted: int) -> int:
    return wanted or os.cpu_count() or 1


def _threads(wanted: int) -> None:
    import torch

    if wanted or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_cores(wanted))
