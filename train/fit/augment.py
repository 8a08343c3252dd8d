"""Augmentation of a batch on the device: one sampling grid for image and truth, one interpolation of the pixels.

Geometry: for every pixel of the result, its position in the film in units of half the side (-1 to 1). All changes are combined
in one grid, so image and truth stay aligned and the film is interpolated once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from train.fit.recipe import Augmentation


class RandomDraws:
    """Random numbers of one batch: parameters from the CPU, so that they are equal on every device; noise of the size of the
    images from the device itself."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.small = torch.Generator().manual_seed(seed)
        self.large = self.small if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
        self.device = device

    def between(self, n: int, low: float, high: float) -> Tensor:
        """(n, 1, 1, 1) uniform."""
        return self._sent(low + (high - low) * torch.rand(n, 1, 1, 1, generator=self.small))

    def about(self, n: int, half_width: float) -> Tensor:
        """(n, 1, 1, 1) uniform around 0."""
        return self.between(n, -half_width, half_width)

    def chance(self, n: int, p: float) -> Tensor:
        """(n, 1, 1, 1): 1. with probability `p`, else 0."""
        return (self.between(n, 0, 1) < p).float()

    def field(self, n: int, cells: int) -> Tensor:
        """(n, 2, cells, cells) standard normal."""
        return self._sent(torch.randn(n, 2, cells, cells, generator=self.small))

    def _sent(self, drawn: Tensor) -> Tensor:
        """To the device from pinned memory, so that the forty copies of a batch do not wait."""
        return drawn.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else drawn.to(self.device)

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal, of the shape of `like`."""
        return torch.randn(like.shape, generator=self.large, device=like.device)


def augment(image: Tensor, truth: Tensor, crop: int, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
    """image (N, 1, S, S) float32 in [0, 1], truth (N, 1, S, S) float32 0 or 1 -> the same, of `crop` px a side.

    The same seed gives the same result; on another device the noise differs.
    """
    draws = RandomDraws(seed, image.device)
    grid = sampled_grid(truth, crop, how, draws)
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    truth = (F.grid_sample(truth, grid, mode="bilinear", padding_mode="zeros", align_corners=False) > 0.5).float()
    image = vary_tone(image, how, draws)
    return drop_rectangles(image, truth, how, draws)


def sampled_grid(truth: Tensor, crop: int, how: Augmentation, draws: RandomDraws) -> Tensor:
    """(N, crop, crop, 2): the sampling grid of torch's grid_sample, x and y in [-1, 1] inside the film."""
    n, size = truth.shape[0], truth.shape[-1]
    share = crop / size
    ticks = (2 * torch.arange(crop, device=truth.device) + 1) / crop - 1
    y, x = (t.expand(n, 1, crop, crop) * share for t in torch.meshgrid(ticks, ticks, indexing="ij"))

    on = draws.chance(n, how.affine)
    angle = on * draws.about(n, how.rotation_degrees) * (math.pi / 180)
    zoom = 1 + on * draws.about(n, how.scale)
    mirror = 1 - 2 * draws.chance(n, how.flip)
    x, y = (torch.cos(angle) * x + torch.sin(angle) * y) / zoom, (torch.cos(angle) * y - torch.sin(angle) * x) / zoom
    across, down = (
        (2 * how.shift * on, 2 * how.shift * on)
        if how.constant_shift
        else (2 * on * draws.about(n, how.shift) for _ in range(2))
    )
    x, y = x * mirror - across, y - down
    if share < 1:
        centre = crop_centre(truth, share, draws)
        x, y = x + centre[:, :1], y + centre[:, 1:]
    dx, dy = warp(x, y, how, draws)
    return torch.cat([x + dx, y + dy], 1).permute(0, 2, 3, 1)


def crop_centre(truth: Tensor, share: float, draws: RandomDraws) -> Tensor:
    """(N, 2, 1, 1): x, y of the centre of the crop. For half of the positive films the crop contains the centre of the lesion;
    for all others it lies anywhere."""
    n, room = truth.shape[0], 1 - share
    anywhere = torch.cat([draws.about(n, room) for _ in range(2)], 1)
    near = torch.cat([draws.about(n, share * 0.6) for _ in range(2)], 1)
    ticks = torch.linspace(-1, 1, truth.shape[-1], device=truth.device)
    mass = truth.sum((1, 2, 3)).clamp(min=1)
    middle = torch.stack([(truth.sum((1, 2)) * ticks).sum(1) / mass, (truth.sum((1, 3)) * ticks).sum(1) / mass], 1)[
        ..., None, None
    ]
    wanted = draws.chance(n, 0.5) * (truth.amax((1, 2, 3), keepdim=True) > 0)
    return torch.where(wanted > 0, (middle + near).clamp(-room, room), anywhere)


def warp(x: Tensor, y: Tensor, how: Augmentation, draws: RandomDraws) -> tuple[Tensor, Tensor]:
    """(N, 1, S, S) offsets of x and y by elastic, grid or optical distortion, one for each film; 0 for films without
    distortion."""
    n, _, side, _ = x.shape
    kind = draws.between(n, 0, 3).floor()
    on = draws.chance(n, how.warp)
    elastic = F.interpolate(draws.field(n, 9), (side, side), mode="bicubic", align_corners=True) * how.elastic
    bars = F.interpolate(draws.field(n, 5), (side, side), mode="bilinear", align_corners=True) * how.grid
    bend = draws.about(n, how.optical) * (x * x + y * y)
    pick = [on * (kind == k) for k in range(3)]
    dx = pick[0] * elastic[:, :1] + pick[1] * bars[:, :1] + pick[2] * bend * x
    dy = pick[0] * elastic[:, 1:] + pick[1] * bars[:, 1:] + pick[2] * bend * y
    return dx, dy


def vary_tone(image: Tensor, how: Augmentation, draws: RandomDraws) -> Tensor:
    """Change window, contrast, gamma, sharpness and noise, as between X-ray systems. (N, 1, S, S) in [0, 1]."""
    n = image.shape[0]
    on = draws.chance(n, how.tone)
    low, high = on * draws.about(n, how.window), 1 + on * draws.about(n, how.window)
    image = ((image - low) / (high - low).clamp(min=0.3)).clamp(0, 1) ** torch.exp(on * draws.about(n, how.gamma))
    image = ((image - 0.5) * (1 + on * draws.about(n, how.contrast)) + 0.5 + on * draws.about(n, how.contrast / 2)).clamp(0, 1)
    if how.detail:
        for cells in (64, 16):  # bands, in cells of the side
            coarse = F.interpolate(F.adaptive_avg_pool2d(image, cells), image.shape[-2:], mode="bicubic", align_corners=False)
            image = image + draws.chance(n, 0.4) * draws.between(n, 0, how.detail) * (image - coarse)
    if how.blur:
        soft = F.avg_pool2d(F.avg_pool2d(image, 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False)
        image = torch.lerp(image, soft, draws.chance(n, 0.3) * draws.between(n, 0, how.blur))
    if how.noise:
        image = image + draws.chance(n, 0.5) * draws.between(n, 0, how.noise) * draws.noise(image)
    return image.clamp(0, 1)


def drop_rectangles(image: Tensor, truth: Tensor, how: Augmentation, draws: RandomDraws) -> tuple[Tensor, Tensor]:
    """Blank rectangles, in the truth, too: what cannot be seen is no lesion to find."""
    if not how.dropout:
        return image, truth
    n, side = image.shape[0], image.shape[-1]
    ticks = torch.arange(side, device=image.device) / side
    kept, on = torch.ones_like(image), draws.chance(n, how.dropout)
    for _ in range(3):
        top, left, h, w = (
            draws.between(n, 0, 1),
            draws.between(n, 0, 1),
            draws.between(n, 0.02, 0.15),
            draws.between(n, 0.02, 0.15),
        )
        rows = ((ticks >= top) & (ticks < top + h))[:, :, 0, :, None]
        columns = ((ticks >= left) & (ticks < left + w))[:, :, 0, None, :]
        kept = kept * (1 - on * (rows & columns)[:, None, 0].float())
    return image * kept, truth * kept


def resize_pair(image: Tensor, truth: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Both shrunk to (N, 1, size, size) float32 by averaging over the area, as `Placement.to_model` does; the truth stays 0 or
    1."""
    if image.shape[-1] == size:
        return image, truth
    return F.interpolate(image, (size, size), mode="area"), (F.interpolate(truth, (size, size), mode="area") > 0.5).float()
