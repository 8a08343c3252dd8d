"""On a machine with a CUDA GPU: it gives the CPU's answers, trains, and goes on where it was killed. Elsewhere skipped: CI has
none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import tiny_data, tiny_recipe

import segmenter
from segmenter.engine import Segmenter
from segmenter.model.artifact import load_artifact
from segmenter.model.predict import Predictor
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.settings import Settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
DEMO = Path(segmenter.__file__).parent / "artifacts" / "demo"
SHAPES = ((1250, 1024), (1024, 1300), (1100, 900), (2500, 2048))


def test_a_gpu_gives_the_cpus_answers():
    gpu, cpu = (Segmenter(load_artifact(DEMO), Settings(device=device)) for device in ("cuda", "cpu"))
    assert gpu.predict.engine == "torch" and gpu.identity.digest == cpu.identity.digest
    films = [
        phantom_dataset(draw_phantom(seed, shape=shape, pneumothorax=seed % 2 == 0), kind="DX", bits=12)
        for seed, shape in enumerate(SHAPES * 5, 40)
    ]
    dice = []
    for one, other in zip(gpu.segment(films), cpu.segment(films), strict=True):
        assert one.decision is not None and other.decision is not None
        assert abs(one.decision.image_probability - other.decision.image_probability) < 0.01
        assert one.decision.positive == other.decision.positive
        if area := one.decision.mask.sum() + other.decision.mask.sum():
            dice.append(2 * (one.decision.mask & other.decision.mask).sum() / area)
    assert len(dice) >= 10, "films without a mask would prove little"
    assert min(dice) > 0.97 and np.mean(dice) > 0.995, "a region at the floor may come or go with the last bits, and no more"


def test_what_float16_cannot_hold_is_computed_in_float32(monkeypatch):
    artifact = load_artifact(DEMO)
    images = np.random.default_rng(0).random((2, 1, artifact.manifest.input.size, artifact.manifest.input.size), np.float32)
    [plain, _] = Predictor(artifact, "cuda")(images)
    predictor = Predictor(artifact, "cuda")
    [network] = predictor._members.networks
    seen = []

    def overflowing(x):
        seen.append(torch.is_autocast_enabled("cuda"))
        mask, image = network(x)
        return (mask * torch.inf if seen[-1] else mask), image

    monkeypatch.setattr(predictor._members, "networks", [overflowing])
    [answer, _] = predictor(images)
    assert True in seen and seen[-1] is False
    assert np.isfinite(answer.probability).all() and np.abs(answer.probability - plain.probability).max() < 0.02


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_run_on_a_gpu_goes_on_where_it_was_killed(tmp_path, precision, monkeypatch):
    from train.fit import fit
    from train.fit.recipe import load_recipe

    data = tiny_data(tmp_path)
    recipe_file = tiny_recipe(tmp_path, **{'precision = "fp32"': f'precision = "{precision}"'})
    recipe = load_recipe(str(recipe_file))

    def order(run: str, resume: bool = False) -> fit.FitOptions:
        return fit.FitOptions(data.folder, tmp_path / run, recipe_file, resume=resume, device="cuda")

    fit.fit(recipe, order("whole"))
    with monkeypatch.context() as killed:
        killed.setattr(fit, "end_epoch", _twice_then_killed(fit.end_epoch))
        with pytest.raises(KeyboardInterrupt):
            fit.fit(recipe, order("killed"))
    fit.fit(recipe, order("killed", resume=True))
    rows = [(tmp_path / run / "metrics.csv").read_text().splitlines() for run in ("whole", "killed")]
    assert len(rows[0]) == len(rows[1]) == 4
    whole, killed_run = (fit.checkpoint.chosen(tmp_path / run, "last") for run in ("whole", "killed"))
    for name, tensor in whole.items():
        assert torch.isfinite(tensor.float()).all()
        assert (tensor.float() - killed_run[name].float()).abs().max() <= 0.05 * tensor.float().abs().max() + 1e-3, name


def _twice_then_killed(end_epoch):
    calls = []

    def wrapped(*args):
        end_epoch(*args)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    return wrapped
