"""Distances between two sets of lattice points, exact to rounding, faster than a distance transform or a search tree.

Surfaces that a person would compare lie close together, so the neighbours of a point are tried in the order of their
distance until one belongs to the other set: most points need a few dozen looks. Points that need many go to a k-d tree.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from evaluate.overlap import Mask
from preprocess.geometry import Triple

Distances = NDArray[np.float64]

#: Up to so many points go to the tree at once: trying neighbours pays when many points share the work of a try.
_FEW = 5000

#: Neighbours are tried up to this far; a point farther from the other set goes to the tree.
_NEAR_MM = 8.0

#: About so many neighbours are tried at most; fine spacings would have tens of thousands within `_NEAR_MM`.
_MOST_NEIGHBOURS = 4000

#: So many looks a point, in the mean, before the tree is the cheaper way.
_LOOKS_PER_POINT = 150


def nearest_mm(points: Mask, others: Mask, spacing_mm: Triple, limit_mm: float = np.inf) -> Distances:
    """Distance in mm from every voxel of `points` to the nearest voxel of `others`, centre to centre, in scan order.

    Both masks are (z, y, x) of one shape, `spacing_mm` alike. A distance beyond `limit_mm` may come back as infinite;
    all are when `others` is empty.
    """
    index = np.argwhere(points)
    found = np.full(len(index), np.inf)
    if not others.any():
        return found
    left = np.arange(len(index))
    if len(index) > _FEW:
        left = _try_neighbours(index, others, spacing_mm, limit_mm, found)
    if len(left):
        tree = cKDTree(np.argwhere(others) * np.array(spacing_mm))
        # The tree's bound is strict, and its rounding is not ours.
        bound = limit_mm * (1 + 1e-9) + 1e-9
        found[left] = tree.query(index[left] * np.array(spacing_mm), distance_upper_bound=bound)[0]
    return found


def _try_neighbours(
    index: NDArray[Any], others: Mask, spacing_mm: Triple, limit_mm: float, found: Distances
) -> NDArray[np.intp]:
    """Write the distances that a look at near neighbours finds into `found`; the numbers of the points left over."""
    sphere_mm = (_MOST_NEIGHBOURS * math.prod(spacing_mm) * 3 / (4 * math.pi)) ** (1 / 3)
    radius_mm = min(limit_mm, _NEAR_MM, sphere_mm)
    offsets, distances = _neighbours(spacing_mm, radius_mm)
    margin = np.abs(offsets).max(axis=0)
    padded = np.pad(others, [(m, m) for m in margin])
    flat, strides = padded.ravel(), np.array(padded.strides)
    place, steps = (index + margin) @ strides, offsets @ strides
    left = np.arange(len(index))
    looks, affordable = 0, _LOOKS_PER_POINT * len(index)
    for step, distance in zip(steps, distances, strict=True):
        looks += len(left)
        if not len(left) or looks > affordable:
            return left
        hit = flat[place + step]
        if hit.any():
            found[left[hit]] = distance
            left, place = left[~hit], place[~hit]
    return left[:0] if radius_mm >= limit_mm else left


@lru_cache(maxsize=16)
def _neighbours(spacing_mm: Triple, radius_mm: float) -> tuple[NDArray[np.intp], Distances]:
    """Offsets (z, y, x) in voxels within `radius_mm`, the nearest first, and their lengths in mm."""
    reach = [int(radius_mm / s + 1e-6) for s in spacing_mm]
    lattice = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = np.sqrt(((lattice * np.array(spacing_mm)) ** 2).sum(axis=1))
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius_mm + 1e-6]
    return lattice[order], lengths[order]
