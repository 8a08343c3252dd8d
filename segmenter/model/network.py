"""The network of an artifact, built from the `network` table of its manifest. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

SPEC_KEYS = {"architecture", "encoder", "in_channels", "image_head", "decoder_channels"}
DECODER_CHANNELS = (256, 128, 64, 32, 16)
EVIDENCE_PIXELS = 8  # side of the smallest spot that the image head uses: 8 x 8 px of 512 x 512 are .00024 of the film


class PneumothoraxNetwork(nn.Module):
    """A U-Net with an image-level head.

    The head combines two features: the encoder's pooled features, and the strongest 8 x 8 spot of the mask. Average pooling
    alone dilutes a lesion of .8 % of the film among the other 99 %.

    forward(x): x (N, C, S, S) float32, S divisible by 32 -> mask_logits (N, 1, S, S), image_logits (N, 1).
    """

    unet: Any  # segmentation_models_pytorch has no types

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self.evidence = nn.Linear(1, 1)
        nn.init.constant_(self.evidence.weight, 0.5)
        nn.init.zeros_(self.evidence.bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask and image logits, as above."""
        mask_logits, feature_logits = self.unet(x)
        spots = nn.functional.avg_pool2d(mask_logits, EVIDENCE_PIXELS, EVIDENCE_PIXELS // 2)
        return mask_logits, feature_logits + self.evidence(spots.amax(dim=(2, 3)))


def build_network(spec: Mapping[str, Any]) -> PneumothoraxNetwork:
    """A network with random weights for `spec`, e.g. {"architecture": "unet", "encoder": "efficientnet-b4",
    "in_channels": 1, "image_head": true}; optional "decoder_channels", five numbers.

    Raises ValueError for a spec this code does not know.
    """
    import segmentation_models_pytorch as smp  # slow to import (torchvision, timm)

    unknown = set(spec) - SPEC_KEYS
    if unknown or spec.get("architecture") != "unet" or spec.get("image_head") is not True:
        raise ValueError(
            f"network spec {dict(spec)!r} is not known to this version: it builds architecture "
            "'unet' with image_head true"
            f" and the keys {sorted(SPEC_KEYS)}; use an artifact exported by this version, or a newer version"
        )
    unet = smp.Unet(
        encoder_name=spec["encoder"],
        encoder_weights=None,
        in_channels=spec["in_channels"],
        decoder_channels=tuple(spec.get("decoder_channels", DECODER_CHANNELS)),
        classes=1,
        aux_params={"classes": 1, "pooling": "avg", "dropout": 0.2},
    )
    return PneumothoraxNetwork(padding_in_convolutions(unet))


def padding_in_convolutions(network: nn.Module) -> nn.Module:
    """The same network, with padding inside its convolutions wherever it is equal on all sides. The library's EfficientNet pads
    in a separate step before each depthwise convolution, which moves the largest tensors through memory twice."""
    for module in network.modules():
        before = getattr(module, "static_padding", None)
        if isinstance(module, nn.Conv2d) and isinstance(before, nn.ZeroPad2d) and len(set(before.padding)) == 1:
            module.padding = (before.padding[0], before.padding[0])
            module.static_padding = nn.Identity()
    return network
