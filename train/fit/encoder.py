"""Initial weights: an ImageNet file on disk, or an artifact. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from segmenter.model.artifact import file_sha256, load_artifact
from segmenter.model.network import PneumothoraxNetwork

STEM = "_conv_stem.weight"
IMAGENET_STD = (0.229, 0.224, 0.225)  # of the three channels that the weights were trained with
PRIOR_LOGIT = -4.0


class WeightsError(ValueError):
    """The file does not contain the weights that the network needs; the message tells what to do."""


def load_imagenet(network: PneumothoraxNetwork, path: Path, sha256: str, std: float) -> None:
    """Load ImageNet weights into the encoder of `network`; all keys must fit. `std`: of the recipe's normalisation.

    A grey film equals three equal channels: with one input channel the stem's weights are summed over them, each scaled by
    `std` / IMAGENET_STD of its channel. Raises WeightsError for another digest or other keys.
    """
    if (found := file_sha256(path)) != sha256:
        raise WeightsError(f"{path} has sha256 {found}, not the one given: get the file again, or correct --encoder-sha256")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors ({error})") from error
    encoder = network.unet.encoder
    wanted = encoder.state_dict()
    kept = {k: t for k, t in tensors.items() if not k.startswith(("_fc.", "classifier.", "fc."))}
    if missing := sorted(wanted.keys() - kept.keys()):
        keys = "timm's" if any(k.startswith(("conv_stem", "blocks.")) for k in kept) else "other"
        raise WeightsError(
            f"{path} has {keys} keys: {missing[0]} and {len(missing) - 1} others are missing; take the file of the same "
            "encoder from segmentation_models_pytorch (model.safetensors of smp-hub/efficientnet-b4.imagenet)"
        )
    if kept[STEM].shape[1] == 3 and wanted[STEM].shape[1] == 1:
        scale = torch.tensor([std / s for s in IMAGENET_STD]) if std < 1 else torch.ones(3)
        kept[STEM] = (kept[STEM] * scale[None, :, None, None]).sum(1, keepdim=True)
    try:
        encoder.load_state_dict(kept, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit the encoder: {str(error).splitlines()[-1].strip()}") from error


def load_start(network: nn.Module, artifact: Path) -> None:
    """Load all weights of the first member of an artifact. Raises ArtifactError, WeightsError."""
    try:
        network.load_state_dict(load_artifact(artifact).networks()[0].state_dict())
    except RuntimeError as error:
        raise WeightsError(f"{artifact} is of another network than the recipe's; name one of the same encoder") from error


def artifact_name(artifact: Path) -> str:
    """Name, version and digest of an artifact, without its path. Raises ArtifactError."""
    found = load_artifact(artifact)
    return f"{found.manifest.name} {found.manifest.version}, weights {found.sha256[:16]}"


def initialise_heads(network: PneumothoraxNetwork, image_loss: bool) -> None:
    """Start from the prior of most pixels: no pneumothorax (.008 of a positive film, none of the others). The image head
    includes the mask's strongest spot, so its bias is shifted with it. Without an image loss it uses nothing else."""
    if not image_loss:
        for parameter in network.unet.classification_head.parameters():
            nn.init.zeros_(parameter)
    nn.init.constant_(network.unet.segmentation_head[0].bias, PRIOR_LOGIT)
    nn.init.constant_(network.evidence.bias, -PRIOR_LOGIT * float(network.evidence.weight.detach()))
