"""Growing EfficientNet-B4 from EfficientNet-Lite2: the large network answers as the small one did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from segmenter.model.artifact import file_sha256
from segmenter.model.network import build_network
from train.cli import main
from train.data.cases import DataError
from train.fit import grow
from train.fit.encoder import STEM, WeightsError, load_imagenet
from train.fit.recipe import load_recipe

Tensors = dict[str, torch.Tensor]
SPEC = {"architecture": "unet", "encoder": "efficientnet-b4", "in_channels": 1, "image_head": True}
LITE2 = (  # of each stage: blocks, channels of its result, kernel, expansion (Liu et al., EfficientNet-Lite, 2020)
    (1, 16, 3, 1), (3, 24, 3, 6), (3, 48, 5, 6), (4, 88, 3, 6), (4, 120, 5, 6), (5, 208, 5, 6), (1, 352, 3, 6),
)  # fmt: skip
B4_BLOCKS = (2, 4, 4, 6, 6, 8, 2)
STRONG = load_recipe("strong")


def random_lite2(seed: int) -> Tensors:
    """An EfficientNet-Lite2 with random weights, keys as in the published file."""
    torch.manual_seed(seed)
    tensors: Tensors = {}

    def convolution(key: str, out: int, into: int, kernel: int) -> None:
        tensors[f"{key}.weight"] = torch.randn(out, into, kernel, kernel) * (2 / (into * kernel**2)) ** 0.5

    def batchnorm(key: str, size: int) -> None:
        tensors[f"{key}.weight"], tensors[f"{key}.bias"] = torch.rand(size) + 0.5, torch.randn(size) * 0.3 + 0.5
        tensors[f"{key}.running_mean"], tensors[f"{key}.running_var"] = torch.zeros(size), torch.ones(size)
        tensors[f"{key}.num_batches_tracked"] = torch.tensor(7)

    convolution("_conv_stem", 32, 3, 3)
    batchnorm("_bn0", 32)
    number, into = 0, 32
    for blocks, out, kernel, expansion in LITE2:
        for _ in range(blocks):
            block, inner = f"_blocks.{number}.", into * expansion
            if expansion > 1:
                convolution(f"{block}_expand_conv", inner, into, 1)
                batchnorm(f"{block}_bn0", inner)
            convolution(f"{block}_depthwise_conv", inner, 1, kernel)
            batchnorm(f"{block}_bn1", inner)
            convolution(f"{block}_project_conv", out, inner, 1)
            batchnorm(f"{block}_bn2", out)
            number, into = number + 1, out
    convolution("_conv_head", 1280, 352, 1)
    batchnorm("_bn1", 1280)
    return tensors | {"_fc.weight": torch.randn(1000, 1280), "_fc.bias": torch.zeros(1000)}


def lite_features(lite: Tensors, encoder: Any, grey: torch.Tensor, training: bool = False) -> list[torch.Tensor]:
    """Results of the seven stages (N, C, S, S) for films (N, 1, S, S) as EfficientNet-Lite2 sees them, padded at the edges as
    `encoder` pads. `training`: the statistics of `lite` become those of these films."""

    def normed(key: str, x: torch.Tensor) -> torch.Tensor:
        statistics, affine = ("running_mean", "running_var"), ("weight", "bias")
        parts = [lite[f"{key}.{part}"] for part in statistics + affine]
        return F.batch_norm(x, *parts, training=training, momentum=1.0, eps=1e-3)

    def convolved(key: str, x: torch.Tensor, like: Any = None) -> torch.Tensor:
        weight = lite[f"{key}.weight"]
        groups = x.shape[1] // weight.shape[1]
        if like is None:
            return F.conv2d(x, weight, groups=groups)
        return F.conv2d(like.static_padding(x), weight, stride=like.stride, padding=like.padding, groups=groups)

    x = F.relu6(normed("_bn0", convolved("_conv_stem", grey.expand(-1, 3, -1, -1), encoder._conv_stem)))
    number, results = 0, []
    for stage, (blocks, _, _, expansion) in enumerate(LITE2):
        for position in range(blocks):
            block, like = f"_blocks.{number}.", encoder._blocks[sum(B4_BLOCKS[:stage]) + position]
            y = F.relu6(normed(f"{block}_bn0", convolved(f"{block}_expand_conv", x))) if expansion > 1 else x
            y = F.relu6(normed(f"{block}_bn1", convolved(f"{block}_depthwise_conv", y, like._depthwise_conv)))
            y = normed(f"{block}_bn2", convolved(f"{block}_project_conv", y))
            x = y + x if y.shape == x.shape else y
            number += 1
        results.append(x)
    return results


def stage_features(encoder: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Results of the seven stages of the grown encoder, cut to the channels that are the original's in order."""
    x = encoder._swish(encoder._bn0(encoder._conv_stem(x)))
    ends, results = np.cumsum(B4_BLOCKS) - 1, []
    for number, block in enumerate(encoder._blocks):
        x = block(x)
        if number in ends:
            results.append(x[:, : LITE2[len(results)][1]])
    return results


def correlations(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> list[float]:
    """Of each stage: mean over its channels of the correlation over films and places."""
    centred = [[x - x.mean((0, 2, 3), keepdim=True) for x in (a, b)] for a, b in zip(ours, theirs, strict=True)]
    return [float(F.cosine_similarity(a.transpose(0, 1).flatten(1), b.transpose(0, 1).flatten(1)).mean()) for a, b in centred]


def films(seed: int, count: int = 8) -> torch.Tensor:
    """Random smooth films (N, 1, 96, 96) in [0, 1]."""
    coarse = torch.rand(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (96, 96), mode="bicubic").clamp(0, 1)


def as_lite_sees(x: torch.Tensor) -> torch.Tensor:
    return (x - 127 / 255) / (128 / 255)


@pytest.fixture(scope="module")
def lite() -> Tensors:
    """Random weights whose BatchNorm has the statistics of random films, as a trained network's has those of its films."""
    tensors = random_lite2(3)
    with torch.no_grad():
        lite_features(tensors, grow.new_encoder("efficientnet-b4"), as_lite_sees(films(1)), training=True)
    return tensors


@pytest.fixture(scope="module")
def weights(lite: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lite2") / "lite2.pth"
    torch.save(lite, file)
    return file


def grown_encoder(lite: Tensors, mean: float, std: float) -> Any:
    encoder = grow.new_encoder("efficientnet-b4")
    encoder.load_state_dict(grow.grown(lite, encoder.state_dict(), seed=5, mean=mean, std=std))
    return encoder


class ScaledReLU6(nn.Module):
    """The original's activation, between a BatchNorm and a convolution that are scaled for SiLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu6(x / grow.SILU_SCALE) * grow.SILU_SCALE


def test_with_the_originals_activation_the_features_are_the_originals(lite: Tensors) -> None:
    """Copies, shares and extra blocks change nothing: one wrong share would, SiLU is all that is left."""
    encoder = grown_encoder(lite, 127 / 255, 128 / 255)
    encoder._swish = ScaledReLU6()
    for block in encoder._blocks:
        block._swish = ScaledReLU6()
        nn.init.zeros_(block._se_expand.weight)  # the gates' dependence on the film is tested below
    x = as_lite_sees(films(2))
    with torch.no_grad():
        ours, theirs = stage_features(encoder, x), lite_features(lite, encoder, x)
    off = [float((a - b).abs().max() / b.std()) for a, b in zip(ours, theirs, strict=True)]
    assert max(off) < 0.001, off


def test_features_follow_the_originals(lite: Tensors) -> None:
    """With SiLU and squeeze-excitation, in inference, by copied statistics and by those of eight films. Measured from stage to
    stage: .995, .99, .97, .94, .89, .83, .80 and better; a new network has .07 and less."""
    encoder = grown_encoder(lite, STRONG.mean, STRONG.std)
    ours_x, theirs_x = (films(2) - STRONG.mean) / STRONG.std, as_lite_sees(films(2))
    with torch.no_grad():
        theirs = lite_features(lite, encoder, theirs_x)
        copied = correlations(stage_features(encoder, ours_x), theirs)
        grow.recalibrate(encoder, list(films(1).split(4)), STRONG.mean, STRONG.std)
        recalibrated = correlations(stage_features(encoder, ours_x), theirs)
        new = correlations(stage_features(grow.new_encoder("efficientnet-b4"), ours_x), theirs)
    bounds = (0.98, 0.96, 0.95, 0.9, 0.85, 0.78, 0.75)
    assert all(found > bound for found, bound in zip(copied, bounds, strict=True)), copied
    assert all(found > bound for found, bound in zip(recalibrated, bounds, strict=True)), recalibrated
    assert max(new) < 0.2, new


def test_the_stem_sees_a_film_normalised_as_the_recipe_does(lite: Tensors) -> None:
    x, stems = films(2), []
    for mean, std in ((127 / 255, 128 / 255), (STRONG.mean, STRONG.std), (0.0, 1.0)):
        encoder = grown_encoder(lite, mean, std)
        with torch.no_grad():
            stems.append(encoder._bn0(encoder._conv_stem((x - mean) / std))[..., :-1, :-1])  # the last ones see the padding
    assert torch.allclose(stems[0], stems[1], atol=1e-3) and torch.allclose(stems[0], stems[2], atol=1e-3)


def test_copies_can_learn_different_things(lite: Tensors) -> None:
    """A copied channel and its original have the same weights in, and other ones out."""
    encoder = grown_encoder(lite, STRONG.mean, STRONG.std)
    stem, project = encoder._conv_stem.weight, encoder._blocks[0]._project_conv.weight
    for copy in range(32, 48):
        original = int((stem[:32] - stem[copy]).abs().sum((1, 2, 3)).argmin())
        assert torch.equal(stem[original], stem[copy])
        assert (project[:, original] / project[:, copy] - 1).abs().mean() > 0.1


def test_gates_start_open_and_extra_blocks_as_identities(lite: Tensors) -> None:
    encoder, gates = grown_encoder(lite, STRONG.mean, STRONG.std), []
    for block in encoder._blocks:
        block._se_expand.register_forward_hook(lambda _, __, out: gates.append(torch.sigmoid(out)))
    with torch.no_grad():
        encoder((films(2) - STRONG.mean) / STRONG.std)
        values = torch.cat([gate.flatten() for gate in gates])
        assert len(gates) == 32 and values.min() > 0.97 and values.max() < 0.99
        for stage, (blocks, *_) in enumerate(LITE2):
            first = sum(B4_BLOCKS[:stage])
            for block in encoder._blocks[first + blocks : first + B4_BLOCKS[stage]]:
                x = torch.randn(2, block._project_conv.out_channels, 8, 8)
                assert torch.equal(block(x), x)


def test_the_same_seed_gives_the_same_file_and_fit_loads_it(weights: Path, tmp_path: Path) -> None:
    def command(name: str, *options: str) -> Path:
        out = tmp_path / "runs" / name
        done = CliRunner().invoke(main, ["grow", "--weights", str(weights), "--out", str(out), "--threads", "1", *options])
        assert done.exit_code == 0, done.output
        assert f"--encoder-sha256 {file_sha256(out)}" in done.output
        return out

    first, again, other = command("a"), command("b"), command("c", "--seed", "1")
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    network = build_network(SPEC)
    load_imagenet(network, first, file_sha256(first), STRONG.std)
    loaded, file = network.unet.encoder.state_dict(), load_file(first)
    assert loaded.keys() == file.keys() and all(torch.equal(loaded[key], file[key]) for key in file)


def test_statistics_are_those_of_films_where_films_are_given(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grow, "CALIBRATION_PX", 64)
    (tmp_path / "films").mkdir()
    for number, film in enumerate(films(4, count=9).squeeze(1).numpy()):
        Image.fromarray((film * 255).astype(np.uint8)).save(tmp_path / "films" / f"{number}.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "films" / "1.mask.png")
    command = ["grow", "--weights", str(weights), "--films", str(tmp_path / "films"), "--threads", "1", "--out"]
    for name in ("a", "b"):
        done = CliRunner().invoke(main, [*command, str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    (batch,) = grow.film_batches(tmp_path / "films", seed=0)
    found = load_file(tmp_path / "a")
    seen = F.conv2d(F.pad((batch - STRONG.mean) / STRONG.std, (0, 1, 0, 1)), found[STEM], stride=2)
    assert torch.allclose(found["_bn0.running_mean"], seen.mean((0, 2, 3)), atol=1e-3)
    assert torch.allclose(found["_bn0.running_var"], seen.var((0, 2, 3)), rtol=1e-3, atol=1e-4)
    with pytest.raises(DataError, match="at least 8"):
        grow.film_batches(tmp_path / "runs", seed=0)


def test_what_cannot_be_grown_is_named(lite: Tensors, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot grow to"):
        grow.grown(lite, grow.new_encoder("efficientnet-b0").state_dict(), seed=0, mean=0.449, std=0.226)
    with pytest.raises(WeightsError, match="not the same layers"):
        short = {key: tensor for key, tensor in lite.items() if not key.startswith("_blocks.7.")}
        grow.grown(short, grow.new_encoder("efficientnet-b4").state_dict(), seed=0, mean=0.449, std=0.226)
    with pytest.raises(WeightsError, match="no encoder efficientnet-b99"):
        grow.new_encoder("efficientnet-b99")
    save_file(build_network(SPEC).unet.encoder.state_dict(), tmp_path / "b4.safetensors")
    (tmp_path / "text.pth").write_text("not weights")
    for name, sentence in (("b4.safetensors", "no EfficientNet-Lite"), ("text.pth", "cannot be read as weights")):
        arguments = ["grow", "--weights", str(tmp_path / name), "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2 and sentence in " ".join(done.output.replace("│", " ").split()), done.output
