"""The one network of both stages: a 3D U-Net (Çiçek et al., MICCAI 2016) in the form that nnU-Net settled on.

Two 3x3x3 convolutions a block with instance normalisation and leaky ReLU, strided convolutions down, transposed
convolutions up, one logit channel a region. On the way down blocks are plain or residual; on the way up, where less is
decided, one plain block a level (Isensee et al., nnU-Net revisited, MICCAI 2024). It knows neither spacing nor classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from cascade.layers import Convolution, Enlargement, InstanceNorm, Pointwise
from cascade.settings import Network


class ConvBlock(nn.Sequential):
    """Two convolutions 3x3x3 a block, each with instance normalisation and leaky ReLU; the first may halve the size."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, blocks: int = 1) -> None:
        layers: list[nn.Module] = []
        for channels, step in ((inputs, stride), *[(outputs, 1)] * (2 * blocks - 1)):
            layers += [*_convolved(channels, outputs, 3, step), _relu()]
        super().__init__(*layers)


class ResidualBlock(nn.Module):
    """Two convolutions and a way around them (He et al., CVPR 2016), which averages where they take steps."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        first, second = _convolved(inputs, outputs, 3, stride), _convolved(outputs, outputs, 3, 1)
        self.change = nn.Sequential(*first, _relu(), *second)
        around: list[nn.Module] = [nn.AvgPool3d(stride)] if stride > 1 else []
        self.around = nn.Sequential(*around, *(_convolved(inputs, outputs, 1, 1) if inputs != outputs else []))
        self.relu = _relu()

    def forward(self, image: Tensor) -> Tensor:
        """(n, inputs, z, y, x) to (n, outputs, z / stride, y / stride, x / stride)."""
        return cast(Tensor, self.relu(self.change(image) + self.around(image)))


def _convolved(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
    convolution = Convolution(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return [convolution, InstanceNorm(outputs, affine=True)]


def _relu() -> nn.Module:
    return nn.LeakyReLU(0.01, inplace=True)


def _residual(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Module:
    rest = (ResidualBlock(outputs, outputs) for _ in range(blocks - 1))
    return nn.Sequential(ResidualBlock(inputs, outputs, stride), *rest)


def unet(network: Network, regions: int, deep_levels: int = 0) -> UNet3d:
    """The network that `network` describes, with one output a region; see `UNet3d` for `deep_levels`."""
    down = _residual if network.encoder == "residual" else ConvBlock
    return UNet3d(
        network.features,
        regions,
        stem=network.stem,
        deep_levels=deep_levels,
        level=partial(down, blocks=network.blocks),
    )


class UNet3d(nn.Module):
    """Image (n, 1, z, y, x) to logits (n, regions, z, y, x); z, y, x must be multiples of `multiple`.

    `features` are the channels of each level, finest first. The finest level has the image's resolution divided by
    `stem`: the first convolution takes steps of that size, and the last one turns each of its voxels into `stem`^3
    again, so that nothing is computed at full resolution, where most of the time goes and least is seen. With
    `deep_levels`, so many coarser levels have an output of their own, for training alone (see `outputs`). `level`
    makes a level of the way down from its channels in and out and the step of its first convolution.
    """

    def __init__(
        self,
        features: tuple[int, ...],
        regions: int,
        *,
        stem: int = 1,
        deep_levels: int = 0,
        level: Callable[[int, int, int], nn.Module] = ConvBlock,
    ) -> None:
        super().__init__()
        self.multiple, self.regions = stem * 2 ** (len(features) - 1), regions
        self.down = nn.ModuleList(
            level(inputs, outputs, stem if number == 0 else 2)
            for number, (inputs, outputs) in enumerate(zip((1, *features[:-1]), features, strict=True))
        )
        self.up = nn.ModuleList(Enlargement(deep, shallow, 2) for shallow, deep in pairwise(features))
        self.join = nn.ModuleList(ConvBlock(2 * shallow, shallow) for shallow in features[:-1])
        # With so few outputs torch's own is as quick as an `Enlargement`.
        self.head = nn.ConvTranspose3d(features[0], regions, stem, stride=stem)
        # Each output is half the size of the one before it.
        first = 1 if stem == 1 else 0
        self.deep_heads = nn.ModuleList(Pointwise(n, regions) for n in features[first : first + deep_levels])
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of one batch."""
        return cast(Tensor, self.head(self._levels(image)[-1]))

    def outputs(self, image: Tensor) -> list[Tensor]:
        """Logits at full resolution, then at each coarser level that has an output, halved in size each time."""
        levels = self._levels(image)[::-1]
        full = self.head(levels[0])
        coarser = levels if full.shape[2:] != levels[0].shape[2:] else levels[1:]
        return [full, *(head(level) for head, level in zip(self.deep_heads, coarser, strict=False))]

    def _levels(self, image: Tensor) -> list[Tensor]:
        """Features of every level on the way up, coarsest first."""
        skips = []
        for block in self.down:
            image = block(image)
            skips.append(image)
        levels = [skips.pop()]
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            levels.append(join(torch.cat((up(levels[-1]), skips.pop()), dim=1)))
        return levels


def _initialise(module: nn.Module) -> None:
    """He initialisation for leaky ReLU (He et al., ICCV 2015); torch's default starts too small and learns later."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
