"""Where an organ ends that lies in fat: what is nearer to fat than to it, at its edge, is not the organ.

Networks draw an edge at their own resolution, which is coarser than the scan's, and their probabilities are smooth
across it. The HU are not: a voxel that holds more fat than liver is fat, by the same halfway rule as for lesions
(`preprocess.outlines`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.components import Mask
from preprocess.geometry import Triple

#: Adipose tissue in CT, -120 to -90 HU.
FAT_HU = -100.0
#: How far from the edge fat is looked for, in each slice.
DEEP_MM = 2.0
#: Of a larger organ every second, third, ... slice is asked for its HU.
_VOXELS = 2_000_000


def without_fat(organ: Mask, spared: Mask, hu: NDArray[Any], spacing_mm: Triple, share: float) -> Mask:
    """`organ` without the fat at its edge; all arrays (z, y, x).

    Fat is what has gone less than `share` of the way from `FAT_HU` to the median of the organ. It is taken away from
    outside inwards, voxel by voxel of a slice, up to `DEEP_MM` or one voxel, but where it is `spared`, as a tumour is,
    which may be as dark. With a `share` of 0 the organ stays as it is.
    """
    out = organ.copy()
    if share == 0:
        return out
    least = FAT_HU + share * (organ_hu(organ, spared, hu) - FAT_HU)
    steps = [max(1, round(DEEP_MM / s)) for s in spacing_mm[1:]]
    for plane, values, safe in zip(out, hu, spared, strict=True):
        if plane.any():
            _peel(plane, (values < least) & ~safe, steps)
    return out


def organ_hu(organ: Mask, spared: Mask, hu: NDArray[Any]) -> float:
    """The median HU of `organ` but where it is `spared`, of a large one from some slices; -inf, below which nothing is,
    where none is left."""
    slices = np.flatnonzero(organ.any(axis=(1, 2)))
    some = slices[:: max(1, math.ceil(slices.size * organ[0].size / _VOXELS))]
    own = hu[some][organ[some] & ~spared[some]]
    return float(np.median(own)) if own.size else -math.inf


def _peel(plane: Mask, dark: Mask, steps: list[int]) -> None:
    """Takes from `plane` (y, x), in place, what is `dark` and so many voxels or fewer from its outside, along y and x
    by way of dark voxels. Beyond the border nothing is known, so it is no outside."""
    for step in range(max(steps)):
        outside = ~plane
        beside = np.zeros_like(plane)
        if step < steps[0]:
            beside[1:] |= outside[:-1]
            beside[:-1] |= outside[1:]
        if step < steps[1]:
            beside[:, 1:] |= outside[:, :-1]
            beside[:, :-1] |= outside[:, 1:]
        plane &= ~(beside & dark)
