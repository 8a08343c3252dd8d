"""Training: the same seed is the same run, a killed one goes on as if nothing had happened, and it learns."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from killed_run import run_together, run_until
from PIL import Image
from safetensors.torch import load_file, save_file
from servers import free_port
from small_training import RECIPE, tiny_data, tiny_recipe

from segmenter.model.artifact import file_sha256
from segmenter.model.network import build_network
from train.cli import main
from train.data.dataset import PreparedSet
from train.fit import checkpoint, encoder, fit, validation
from train.fit.distributed import ProcessGroup
from train.fit.journal import read_rows
from train.fit.loop import epoch_plan, learning_rate
from train.fit.predictions import predict_films
from train.fit.recipe import Augmentation, RecipeError, Stage, load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return tiny_data(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def one_thread() -> object:
    """Sums of several threads may differ in their last bit from run to run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(run: Path) -> str:
    """Digest of the last checkpoint, optimiser and averages included."""
    last = checkpoint.steps(run)[-1]
    return hashlib.sha256(
        b"".join((last / f"{n}.safetensors").read_bytes() for n in ("network", "ema", "optimiser"))
    ).hexdigest()


def test_a_killed_run_ends_bit_for_bit_as_an_unbroken_one(data: PreparedSet, tmp_path: Path) -> None:
    """Killed after its second step, and of what is left after the fourth: in the first stage, then in the crops."""
    recipe = tiny_recipe(tmp_path)

    def run(name: str, kill_after: int) -> int:
        return run_until(data.folder, tmp_path / name, recipe, kill_after=kill_after)

    assert run("unbroken", 0) == 0
    assert run("killed", 2) == -signal.SIGKILL and len(checkpoint.steps(tmp_path / "killed")) == 1
    assert run("killed", 5) == -signal.SIGKILL and checkpoint.load_progress(checkpoint.steps(tmp_path / "killed")[-1]).step == 5
    assert run("killed", 0) == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "unbroken")
    ours, theirs = (read_rows(tmp_path / name / "metrics.csv") for name in ("killed", "unbroken"))
    same = ("step", "stage", "size", "epoch", "mean_positive_dice", "auroc", "best_step")
    assert [[row[k] for k in same] for row in ours] == [[row[k] for k in same] for row in theirs]
    assert [row["step"] for row in ours] == ["3", "6", "8"]


def test_the_same_seed_gives_the_same_losses(data: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe_file = tiny_recipe(tmp_path, **{"steps = 3": "steps = 4", "epochs = 2": "epochs = 1"})
    recipe = load_recipe(str(recipe_file))
    real = fit.train_step

    def losses(name: str, seed: int) -> list[float]:
        seen: list[float] = []

        def step(*args: object, **kwargs: object) -> dict[str, float]:
            parts = real(*args, **kwargs)  # type: ignore[arg-type]
            seen.append(parts["total"])
            return parts

        monkeypatch.setattr(fit, "train_step", step)
        stages = recipe.stages[:1]
        fit.fit(dataclasses.replace(recipe, seed=seed, stages=stages), order(data, tmp_path / name, recipe_file))
        return seen

    one, two, other = losses("one", 1), losses("two", 1), losses("other", 2)
    assert len(one) == 4 and one == two and one != other


def order(data: PreparedSet, run: Path, recipe: Path, **values: object) -> fit.FitOptions:
    return fit.FitOptions(data.folder, run, recipe, **{"device": "cpu", **values})  # type: ignore[arg-type]


def test_it_learns_four_films_by_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_data(tmp_path, count=8, first_seed=30_000)
    four = sorted(data.rows, key=lambda row: -row.area_fraction)[:4]
    monkeypatch.setattr(PreparedSet, "fold", lambda self, fold: (four, four))
    text = {"steps = 3": "steps = 40", "rate = 1e-3": "rate = 3e-3"}
    recipe_file = tiny_recipe(tmp_path, **text)
    recipe = load_recipe(str(recipe_file))
    still = Augmentation(flip=0, affine=0, warp=0, tone=0, noise=0)
    how = dataclasses.replace(recipe.optimiser, ema=0.9, drop_connect=0.0, batchnorm_momentum=0.1, weight_decay=0.0)
    stages = (dataclasses.replace(recipe.stages[0], positives=(0.0, 0.0), epochs=2),)
    recipe = dataclasses.replace(recipe, augmentation=still, optimiser=how, stages=stages, validation_threshold=(0.5,))
    fit.fit(recipe, order(data, tmp_path / "run", recipe_file))
    network = build_network(recipe.network)
    network.load_state_dict(checkpoint.select_weights(tmp_path / "run", "best"))
    said = predict_films(
        network.eval(), data, four, size=64, mean=recipe.mean, std=recipe.std, flips=False, device=torch.device("cpu")
    )
    assert validation.mean_positive_dice(said, 0.5) > 0.95
    rows = read_rows(tmp_path / "run" / "metrics.csv")
    assert float(rows[-1]["loss_total"]) < float(rows[0]["loss_total"]) / 2


def test_a_run_leaves_what_explains_it(data: PreparedSet, tmp_path: Path) -> None:
    recipe_file = tiny_recipe(tmp_path)
    run = fit.fit(load_recipe(str(recipe_file)), order(data, tmp_path / "run", recipe_file, fold=1))
    notes = json.loads((run / "environment.json").read_text())
    assert (
        notes["fold"] == 1
        and notes["data_sha256"] == data.digest
        and notes["packages"]["torch"] == torch.__version__.split("+")[0]
    )
    assert (run / "recipe.toml").read_text() == RECIPE and len(list((run / "tensorboard").iterdir())) == 1
    assert [p.name for p in checkpoint.steps(run)] == ["step-0000003", "step-0000006", "step-0000008"], (
        "the last three are kept"
    )
    assert len(list((run / "pictures").glob("epoch-*.png"))) == 3 and Image.open(next((run / "pictures").iterdir())).width > 500
    rows = read_rows(run / "metrics.csv")
    scores = [float(r["mean_positive_dice"]) + float(r["auroc"]) for r in rows]
    best = checkpoint.load_progress(run / checkpoint.BEST)
    assert best.best_step == int(rows[int(np.argmax(scores))]["step"]) and best.best_score == pytest.approx(
        max(scores), abs=1e-4
    )
    mean, members = checkpoint.select_weights(run, "mean"), [load_file(p / "ema.safetensors") for p in checkpoint.steps(run)]
    name = "evidence.weight"
    assert torch.allclose(mean[name], torch.stack([m[name] for m in members]).mean(0))

    with pytest.raises(fit.RunError, match="--resume"):
        fit.fit(load_recipe(str(recipe_file)), order(data, run, recipe_file, fold=1))
    with pytest.raises(fit.RunError, match="another fold"):
        fit.fit(load_recipe(str(recipe_file)), order(data, run, recipe_file, fold=0, resume=True))
    recipe_file.write_text(RECIPE.replace("seed = 1", "seed = 2"))
    with pytest.raises(fit.RunError, match="resume with that file"):
        fit.fit(load_recipe(str(recipe_file)), order(data, run, recipe_file, fold=1, resume=True))


def test_two_processes_train_one_network(data: PreparedSet, tmp_path: Path) -> None:
    """gloo, with what torchrun says to each: both end with the same weights, the first alone has written."""
    recipe = tiny_recipe(tmp_path)
    ranks = [tmp_path / "rank-0", tmp_path / "rank-1"]
    assert run_together(data.folder, tmp_path / "run", recipe, free_port(), ranks) == [0, 0]
    assert ranks[0].read_text() == ranks[1].read_text()
    assert len(read_rows(tmp_path / "run" / "metrics.csv")) == 3


def test_the_documented_line_starts_several_processes(data: PreparedSet, tmp_path: Path) -> None:
    """torchrun takes options from behind it unless it is told where its own end."""
    line = "torchrun --nproc-per-node 4 -m -- train fit"
    assert line in (ROOT / "docs" / "train" / "training.md").read_text()
    recipe = tiny_recipe(tmp_path, **{"epochs = 2": "epochs = 1", "steps = 3": "steps = 1", "steps = 2": "steps = 1"})
    words = line.replace("nproc-per-node 4", "nproc-per-node 2").split()[1:]
    given = ["--recipe", recipe, "--data", data.folder, "--run", tmp_path / "run", "--device", "cpu", "--threads", "1"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words, *map(str, given)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert checkpoint.load_progress(checkpoint.steps(tmp_path / "run")[-1]).step == 2


def test_a_run_touches_nothing_but_its_own(data: PreparedSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, **{"epochs = 2": "epochs = 1", "steps = 3": "steps = 1", "steps = 2": "steps = 1"})
    run = tmp_path / "run"
    for name in (".git", ".venv", ".step-0000001.99", ".best.old"):
        (run / name).mkdir(parents=True)
    fit.fit(load_recipe(str(recipe)), order(data, run, recipe))
    assert {path.name for path in run.glob(".*")} == {".git", ".venv"}


def test_what_is_resumed_lies_in_memory_as_what_is_fresh(data: PreparedSet, tmp_path: Path) -> None:
    """Moments and averages of another layout than their weights would slow every step of the rest of a run on a GPU."""
    recipe_file = tiny_recipe(tmp_path, **{"epochs = 2": "epochs = 1", "steps = 3": "steps = 1"})
    recipe, world = load_recipe(str(recipe_file)), ProcessGroup(0, 1, torch.device("cpu"))
    fit.fit(recipe, order(data, tmp_path / "run", recipe_file))
    started = fit.initial_state(recipe, order(data, tmp_path / "run", recipe_file), world)
    state = fit.restore_state(tmp_path / "run", started, world)
    moments = [(p, slot["exp_avg"]) for p, slot in state.optimiser.state.items()]
    averages = [(t, state.average.tensors[name]) for name, t in state.network.state_dict().items()]
    assert moments and all(a.stride() == b.stride() for a, b in (*moments, *averages))


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved(
    data: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, run = fit.total_loss, tmp_path / "run"

    def poisoned(*given: object) -> dict[str, torch.Tensor]:
        return {name: part * float("nan") for name, part in real(*given).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(fit, "total_loss", poisoned)
    recipe_file = tiny_recipe(tmp_path)
    with pytest.raises(fit.RunError, match="is not finite"):
        fit.fit(load_recipe(str(recipe_file)), order(data, run, recipe_file))
    assert not checkpoint.steps(run)


def test_compiling_without_a_compiler_is_refused_before_anything_is_read(
    data: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_file = tiny_recipe(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fit.RunError, match=r"compile = true.*install g\+\+"):
        fit.fit(dataclasses.replace(load_recipe(str(recipe_file)), compile=True), order(data, tmp_path / "run", recipe_file))
    assert not (tmp_path / "run").exists()


# -- pieces ----------------------------------------------------------------------------------------------------


def test_a_plan_has_its_share_of_positives_and_no_film_twice_too_early() -> None:
    positive = np.zeros(100, bool)
    positive[:20] = True
    stage = Stage(size=64, batch=10, epochs=3, rate=1, encoder_rate=1, positives=(0.8, 0.4), steps=30)
    for epoch, share in ((0, 0.8), (1, 0.6), (2, 0.4)):
        plan = epoch_plan(positive, stage, epoch, (1, 0))
        assert plan.shape == (30, 10) and positive[plan].mean() == pytest.approx(share, abs=0.01)
        sick = np.bincount(plan[positive[plan]], minlength=100)[:20]
        well = np.bincount(plan[~positive[plan]], minlength=100)[20:]
        assert sick.max() - sick.min() <= 1 and well.max() - well.min() <= 1, "every film of a kind before any comes again"
    natural = epoch_plan(positive, dataclasses.replace(stage, positives=(0.0, 0.0), steps=10), 0, (1, 0))
    assert sorted(natural.ravel()) == list(range(100))
    assert not np.array_equal(epoch_plan(positive, stage, 0, (1, 0)), epoch_plan(positive, stage, 0, (2, 0)))


def test_the_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(1e-3, 1e-6, 10, s, s / 100) for s in range(101)]
    assert rates[0] == pytest.approx(1e-4, rel=0.01) and max(rates) > 9e-4 and rates[100] == pytest.approx(1e-6)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_recipes_name_their_mistakes(tmp_path: Path) -> None:
    for name in ("published", "strong", "quick", "phantom"):
        recipe = load_recipe(name)
        assert recipe.name == name and recipe.network["encoder"] == "efficientnet-b4"
    assert [s.size for s in load_recipe("strong").stages] == [512, 768, 1024]
    assert load_recipe("published").augmentation.constant_shift and load_recipe("published").stages[0].epochs == 300
    for old, new, says in (
        ("warmup_steps", "warmup_stepps", r"\[optimiser\]: unknown key 'warmup_stepps'"),
        ("seed = 1", "", "'seed' is missing"),
        ("crop = 64", "crop = 128", "a crop is no larger"),
        ("size = 96", "size = 90", "multiples of 32"),
        ('precision = "fp32"', 'precision = "int8"', "not bf16, fp16 or fp32"),
        ("seed = 1", "seed = ", "tiny.toml: "),
        ("size = 96", 'size = "96"', "'96' is no int"),
        ("batch = 4", "batch = 4.5", "4.5 is no int"),
        ("positives = [0.8, 0.4]", "positives = 0.5", "0.5 is no list of numbers"),
        ("bce = 1.0", 'bce = "x"', "'x' is no float"),
        ("in_channels = 1", "in_channels = 3", "films are grey"),
        ('encoder = "efficientnet-b0"', "", "encoder is missing"),
    ):
        with pytest.raises(RecipeError, match=says):
            load_recipe(str(tiny_recipe(tmp_path, **{old: new})))
    with pytest.raises(RecipeError, match="recipes here: phantom, phantom-pairs, published, quick, strong"):
        load_recipe("stronger")


def test_what_is_not_there_is_named(data: PreparedSet, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["fit", "--data", str(data.folder), "--run", str(tmp_path / "run"), "--device", "cuda:7"])
    assert done.exit_code == 2 and "is not here" in done.output
    done = CliRunner().invoke(main, ["fit", "--data", str(data.folder), "--run", str(tmp_path / "run"), "--device", "gpu"])
    assert done.exit_code == 2 and "is not a device" in done.output
    recipe_file = tiny_recipe(tmp_path, **{"efficientnet-b0": "efficientnet-b99"})
    with pytest.raises(fit.RunError, match=r"\[network\]"):
        fit.fit(load_recipe(str(recipe_file)), order(data, tmp_path / "run", recipe_file))


def test_imagenet_weights_come_from_a_local_file_or_not_at_all(tmp_path: Path) -> None:
    spec = {"architecture": "unet", "encoder": "efficientnet-b0", "in_channels": 1, "image_head": True}
    colour = build_network({**spec, "in_channels": 3}).unet.encoder.state_dict()
    save_file({**colour, "_fc.weight": torch.zeros(2, 2)}, tmp_path / "b0.safetensors")
    network = build_network(spec)
    encoder.load_imagenet(network, tmp_path / "b0.safetensors", file_sha256(tmp_path / "b0.safetensors"), std=0.226)
    stem = network.unet.encoder.state_dict()[encoder.STEM]
    assert torch.allclose(stem, sum(colour[encoder.STEM][:, c : c + 1] * 0.226 / s for c, s in enumerate(encoder.IMAGENET_STD)))
    assert torch.equal(network.unet.encoder.state_dict()["_bn0.weight"], colour["_bn0.weight"])
    grey = torch.rand(1, 1, 64, 64)
    three = build_network({**spec, "in_channels": 3})
    three.unet.encoder.load_state_dict(colour)
    encoder.load_imagenet(network, tmp_path / "b0.safetensors", file_sha256(tmp_path / "b0.safetensors"), std=1.0)
    ours, theirs = network.eval().unet.encoder(grey)[1], three.eval().unet.encoder(grey.expand(1, 3, 64, 64))[1]
    assert torch.allclose(ours, theirs, atol=1e-4), "without normalisation a grey film is three equal channels"
    with pytest.raises(encoder.WeightsError, match="sha256"):
        encoder.load_imagenet(network, tmp_path / "b0.safetensors", "0" * 64, std=1.0)
    save_file({"conv_stem.weight": colour[encoder.STEM], "blocks.0.bn1.weight": torch.zeros(2)}, tmp_path / "timm.safetensors")
    with pytest.raises(encoder.WeightsError, match=r"timm's keys.*segmentation_models_pytorch"):
        encoder.load_imagenet(network, tmp_path / "timm.safetensors", file_sha256(tmp_path / "timm.safetensors"), std=1.0)
