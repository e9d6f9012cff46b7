"""Livers as they look in other contrast phases: scans to train on are portal venous, those of a hospital are not.

Without contrast medium the vessels are darker than the liver, in the arterial phase as grey or uneven with what reaches
which part first; a network that has only seen bright vessels in an even liver calls either tumour.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from preprocess.geometry import Triple
from preprocess.preparation import Preparation

#: What is left of by how much vessels are brighter than the liver, least and most: below 0 they are darker.
_LEFT = (-0.7, 0.6)
#: HU above the liver from which on a voxel, smoothed, is of a vessel.
_VESSEL_HU = 6.0
#: Unevenness: HU (standard deviation of its own, never negative) and distance of its nodes in mm, least and most.
_UNEVEN_HU, _NODES_MM = 12.0, (8.0, 30.0)
#: Voxels over which is averaged to tell vessels from noise.
_AVERAGED = 3
#: Fewer voxels of liver say nothing about how bright it is.
_LEAST = 1000


def change_phase(image: Tensor, regions: Tensor, preparation: Preparation, rng: np.random.Generator) -> Tensor:
    """`image` (z, y, x), prepared, with other vessels in its liver, which is uneven, its tumours with it.

    `regions` (regions, z, y, x) 0/1: the liver, and its tumours where they are told apart. What is not liver stays.
    """
    healthy = regions[0] * (1 - regions[1]) if len(regions) > 1 else regions[0]
    left, amount, nodes = rng.uniform(*_LEFT), abs(rng.normal(0, _UNEVEN_HU)), rng.uniform(*_NODES_MM)
    uneven = _field(image, preparation.spacing_mm, nodes, int(rng.integers(2**31)))
    if healthy.sum() < _LEAST:
        return image
    unit = 2 / (preparation.window_hu[1] - preparation.window_hu[0])
    mean = _averaged(image * healthy) / _averaged(healthy).clamp(min=1e-3)
    excess = (mean - mean[healthy > 0].median() - _VESSEL_HU * unit).clamp(min=0)
    changed = image - (1 - left) * excess * healthy + amount * unit * uneven * regions[0]
    return changed.clamp(-1, 1)


def _averaged(values: Tensor) -> Tensor:
    return F.avg_pool3d(values[None, None], _AVERAGED, stride=1, padding=_AVERAGED // 2)[0, 0]


def _field(image: Tensor, spacing_mm: Triple, nodes_mm: float, seed: int) -> Tensor:
    """Values as of a normal distribution at nodes so far apart, and smooth between them, of the shape of `image`."""
    nodes = [int(n * mm / nodes_mm) + 2 for n, mm in zip(image.shape, spacing_mm, strict=True)]
    generator = torch.Generator(image.device).manual_seed(seed)
    drawn = torch.randn(nodes, generator=generator, device=image.device)
    return F.interpolate(drawn[None, None], size=image.shape, mode="trilinear", align_corners=True)[0, 0]
