"""Our networks in PyTorch, layer by layer, with their losses, and a plain U-Net; for `bench_*.py`."""

# PyTorch is an extra.
# pyright: reportMissingImports=false
from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from lungjax.models.encoder import BLOCKS
from lungjax.models.layers import GROUP_SIZE
from lungjax.tasks.segment import LEVELS, MAJORITY


def _conv(channels_in: int, channels_out: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // math.gcd(channels, GROUP_SIZE), channels)


def _conv_norm_relu(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(_conv(channels_in, channels_out), _norm(channels_out), nn.ReLU(inplace=True))


class Block(nn.Module):
    """`lungjax.models.encoder.Block`, without the bottleneck."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels_in, channels, 3, stride),
            _norm(channels),
            nn.ReLU(inplace=True),
            _conv(channels, channels),
            _norm(channels),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(_conv(channels_in, channels, 1, stride), _norm(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.shortcut(x) + self.body(x))


class ResNet(nn.Module):
    """`lungjax.models.encoder.ResNet` with GroupNorm; depths 10, 18 and 34."""

    def __init__(self, *, depth: int, width: int, stem: str, patch_px: int = 2):
        super().__init__()
        self.width, self.patch_px = width, patch_px if stem == "patch" else 1
        self.unshuffle = nn.PixelUnshuffle(self.patch_px)
        self.stem = _conv_norm_relu(self.patch_px**2, width)
        self.stages = nn.ModuleList()
        before = width
        for stage, blocks in enumerate(BLOCKS[depth]):
            channels = width * 2**stage
            strides = [2 if stage else 1] + [1] * (blocks - 1)
            layers = [Block(before if n == 0 else channels, channels, s) for n, s in enumerate(strides)]
            self.stages.append(nn.Sequential(*layers))
            before = channels

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(self.unshuffle(x))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class UNet(nn.Module):
    """`lungjax.models.unet.UNet`. Its dense layer with depth-to-space is a transposed convolution: the same products,
    with a bias for each channel where ours has one for each of the four positions, too."""

    def __init__(self, *, widths: tuple[int, ...], out_channels: int = 1, **encoder):
        super().__init__()
        self.encoder = ResNet(**encoder)
        width = self.encoder.width
        before, self.ups, self.levels = width * 8, nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(widths):
            skip = width * 2 ** (2 - level)
            self.ups.append(nn.ConvTranspose2d(before, channels, 2, 2))
            self.levels.append(
                nn.Sequential(_conv_norm_relu(channels + skip, channels), _conv_norm_relu(channels, channels))
            )
            before = channels
        block = self.encoder.patch_px
        self.head = nn.Sequential(nn.Conv2d(before, out_channels * block**2, 3, padding=1), nn.PixelShuffle(block))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, height, width) -> logits (batch, out_channels, height, width), without an axis of 1."""
        *skips, x = self.encoder(x)
        for up, level, skip in zip(self.ups, self.levels, reversed(skips), strict=True):
            x = level(torch.cat([up(x), skip], 1))
        return self.head(x).squeeze(1)


class SimCLR(nn.Module):
    """`lungjax.tasks.pretrain.SimCLR`."""

    def __init__(self, *, hidden: int, out: int, **encoder):
        super().__init__()
        self.encoder = ResNet(**encoder)
        self.head = nn.Sequential(
            nn.Linear(8 * self.encoder.width, hidden, bias=False),
            nn.LayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x)[-1].mean((2, 3)))


class PlainUNet(nn.Module):
    """The textbook U-Net of 1.9 M parameters: 32 to 256 channels, BatchNorm, transposed convolutions."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256)):
        super().__init__()
        self.downs = nn.ModuleList(self._double(a, b) for a, b in zip((1, *widths), widths, strict=False))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, 2) for deep, shallow in pairs)
        self.levels = nn.ModuleList(self._double(2 * shallow, shallow) for _, shallow in pairs)
        self.head = nn.Conv2d(widths[0], 1, 1)

    @staticmethod
    def _double(channels_in: int, channels: int) -> nn.Sequential:
        layers = []
        for before in (channels_in, channels):
            layers += [_conv(before, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, down in enumerate(self.downs):
            x = down(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, level in zip(self.ups, self.levels, strict=True):
            x = level(torch.cat([up(x), skips.pop()], 1))
        return self.head(x)[:, 0]


def segment_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy and Dice loss of the batch; arrays (batch, height, width)."""
    p = torch.sigmoid(logits)
    dice = (2 * (p * targets).sum() + 1) / ((p + targets).sum() + 1)
    return functional.binary_cross_entropy_with_logits(logits, targets) + 1 - dice


def levels_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`segment_loss` of each level, weighed as by `lungjax.tasks.segment`; arrays (batch, levels, height, width)."""
    levels = [segment_loss(logits[:, level], targets[:, level]) for level in range(LEVELS)]
    others = sum(loss for level, loss in enumerate(levels) if level != MAJORITY)
    return (levels[MAJORITY] + others / (LEVELS - 1)) / 2


def ntxent(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent of (2 batch, features), the second views after the first ones."""
    z = functional.normalize(z)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return functional.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z) // 2))
