"""The one network of both stages: a plain 3D U-Net (Çiçek et al., MICCAI 2016) in the form that nnU-Net settled on.

Two 3x3x3 convolutions a level with instance normalisation and leaky ReLU, strided convolutions down, transposed
convolutions up, one logit channel a region. It knows neither spacing nor classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """Two times convolution 3x3x3, instance normalisation, leaky ReLU; the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        layers: list[nn.Module] = []
        for channels, step in ((inputs, stride), (outputs, 1)):
            layers += [
                nn.Conv3d(channels, outputs, 3, stride=step, padding=1, bias=False),
                nn.InstanceNorm3d(outputs, affine=True),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        super().__init__(*layers)


class UNet3d(nn.Module):
    """Image (n, 1, z, y, x) to logits (n, regions, z, y, x); z, y, x must be multiples of `multiple`.

    `features` are the channels of each level, finest first. The finest level has the image's resolution divided by
    `stem`: the first convolution takes steps of that size, and the last one turns each of its voxels into `stem`^3
    again, so that nothing is computed at full resolution, where most of the time goes and least is seen. With
    `deep_levels`, so many coarser levels have an output of their own, for training alone (see `outputs`).
    """

    def __init__(self, features: tuple[int, ...], regions: int, *, stem: int = 1, deep_levels: int = 0) -> None:
        super().__init__()
        self.multiple, self.regions = stem * 2 ** (len(features) - 1), regions
        self.down = nn.ModuleList(
            ConvBlock(inputs, outputs, stride=stem if level == 0 else 2)
            for level, (inputs, outputs) in enumerate(zip((1, *features[:-1]), features, strict=True))
        )
        self.up = nn.ModuleList(nn.ConvTranspose3d(deep, shallow, 2, stride=2) for shallow, deep in pairwise(features))
        self.join = nn.ModuleList(ConvBlock(2 * shallow, shallow) for shallow in features[:-1])
        self.head = nn.ConvTranspose3d(features[0], regions, stem, stride=stem)
        # Each output is half the size of the one before it.
        first = 1 if stem == 1 else 0
        self.deep_heads = nn.ModuleList(nn.Conv3d(n, regions, 1) for n in features[first : first + deep_levels])
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
