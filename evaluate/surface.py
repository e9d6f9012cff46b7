"""Distances between the surfaces of two masks: ASSD, RMSD and MSD, by the definition of LiTS.

Bilic et al., Medical Image Analysis 84, 102680, 2023, after Heimann et al., IEEE Transactions on Medical Imaging 28,
1251-1265, 2009. A surface is a set of voxels: those of the mask that have a voxel outside it among their 18 neighbours
(sharing a face or an edge). What lies beyond the array is outside, so a mask that touches the border has a surface
there, as in the challenge's scorer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evaluate.nearest import nearest_mm
from evaluate.overlap import Mask
from preprocess.geometry import Triple


@dataclass(frozen=True)
class SurfaceDistances:
    """Symmetric distances of two surfaces A and B in mm: over all d(a, B) and d(b, A) together.

    `assd` is their mean, (sum d) / (|A| + |B|); `rmsd` the root of their mean square; `msd` the largest (Hausdorff).
    """

    assd: float
    rmsd: float
    msd: float


def surface_distances(prediction: Mask, truth: Mask, spacing_mm: Triple) -> SurfaceDistances:
    """The distances of two boolean masks (z, y, x) of one shape, with `spacing_mm` (z, y, x).

    Crop to a box around both masks first: the result is the same, the time is not.
    Raises ValueError when a mask is empty: there is no distance to nothing (see `evaluate.metrics` for the rule).
    """
    a, b = surface_voxels(prediction), surface_voxels(truth)
    if not (a.any() and b.any()):
        raise ValueError("an empty mask has no surface to measure a distance to")
    distances = np.concatenate([nearest_mm(a, b, spacing_mm), nearest_mm(b, a, spacing_mm)])
    return SurfaceDistances(
        assd=float(distances.mean()),
        rmsd=math.sqrt(float(np.square(distances).mean())),
        msd=float(distances.max()),
    )


def surface_voxels(mask: Mask) -> Mask:
    """The voxels of `mask` (z, y, x) that its erosion with the 18-neighbourhood takes away; outside is background."""
    # The 18-neighbourhood is the union of three 3 x 3 squares, one in each plane of axes, so its erosion is the common
    # part of theirs; a square's erosion is a row's in one axis, then in the other.
    along_x, along_y = _eroded(mask, 2), _eroded(mask, 1)
    inside = _eroded(along_x, 1)
    inside &= _eroded(along_x, 0)
    inside &= _eroded(along_y, 0)
    return np.asarray(mask & ~inside)


def _eroded(mask: Mask, axis: int) -> Mask:
    """`mask` without the voxels that lack a neighbour before or behind them along `axis`."""
    out = np.zeros_like(mask)
    before, middle, behind = (
        tuple(slice(start, stop) if a == axis else slice(None) for a in range(3))
        for start, stop in ((None, -2), (1, -1), (2, None))
    )
    np.logical_and(mask[before], mask[behind], out=out[middle])
    out &= mask
    return out
