"""The normalised surface Dice (NSD): the share of both surfaces that lies within a tolerance of the other.

Nikolov et al., "Clinically applicable segmentation of head and neck anatomy", Journal of Medical Internet Research 23,
e26151, 2021. Equal to the `surface-distance` package of its authors: a surface element sits at each corner point of
the voxel lattice whose eight voxels are partly inside, and weighs as much as the area in mm² of the marching-cubes
patch between these eight. A mask that touches the border of the array has a surface there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evaluate.nearest import nearest_mm
from evaluate.overlap import Mask
from preprocess.geometry import Triple

#: The 256 ways to fill a block of 2 x 2 x 2 voxels: bit 0 is voxel (0, 0, 0), bit 1 (0, 0, 1), ... bit 7 (1, 1, 1).
_CODES = 256

#: A distance that exceeds the tolerance by less counts as within: rounding must not decide.
_ROUNDING_MM = 1e-6


def surface_dice(
    prediction: Mask, truth: Mask, spacing_mm: Triple, tolerances_mm: Sequence[float]
) -> tuple[float, ...]:
    """NSD, 0 to 1, at each of `tolerances_mm` of two boolean masks (z, y, x) of one shape; neither may be empty.

    (area of A within the tolerance of B + area of B within that of A) / (area of A + area of B). Crop to a box around
    both masks first: the result is the same, the time is not. Raises ValueError when a mask is empty.
    """
    if not (prediction.any() and truth.any()):
        raise ValueError("an empty mask has no surface to compare with")
    areas_by_code = patch_areas_mm2(spacing_mm)
    codes = [corner_codes(mask) for mask in (prediction, truth)]
    a, b = ((code > 0) & (code < _CODES - 1) for code in codes)
    limit = max(tolerances_mm) + _ROUNDING_MM
    distances = np.concatenate([nearest_mm(a, b, spacing_mm, limit), nearest_mm(b, a, spacing_mm, limit)])
    areas = np.concatenate([areas_by_code[codes[0][a]], areas_by_code[codes[1][b]]])
    total = float(areas.sum())
    return tuple(float(areas[distances <= t + _ROUNDING_MM].sum()) / total for t in tolerances_mm)


def corner_codes(mask: Mask) -> NDArray[np.uint8]:
    """Which of its eight voxels are inside, for each corner of the lattice (z + 1, y + 1, x + 1); see `_CODES`."""
    codes: NDArray[np.uint8] = np.pad(mask, 1).view(np.uint8)
    for axis, bits in ((2, 1), (1, 2), (0, 4)):
        size = codes.shape[axis]
        near, far = (codes.take(range(start, start + size - 1), axis=axis) for start in (0, 1))
        codes = near | (far << np.uint8(bits))
    return codes


@lru_cache(maxsize=64)
def patch_areas_mm2(spacing_mm: Triple) -> NDArray[np.float64]:
    """The area in mm² of the marching-cubes patch of each of the 256 codes, for voxels of `spacing_mm` (z, y, x)."""
    z, y, x = spacing_mm
    scale = np.array([y * x, z * x, z * y])
    areas = np.zeros(_CODES)
    for code, normals in _patches().items():
        areas[code] = np.sqrt(((normals * scale) ** 2).sum(axis=1)).sum()
    return areas


@lru_cache(maxsize=1)
def _patches() -> dict[int, NDArray[np.float64]]:
    """The triangles of each code in a block of unit voxels: normals (triangles, zyx) as long as the area."""
    from skimage.measure import marching_cubes  # slow to import

    patches = {}
    for code in range(1, _CODES - 1):
        # Where two diagonal corners are inside and the rest is not, marching cubes must choose; a block and its
        # complement share one surface, so the emptier of the two is asked.
        asked = min(code, _CODES - 1 - code, key=lambda c: (c.bit_count(), c))
        block = np.array([asked >> bit & 1 for bit in range(8)], float).reshape(2, 2, 2)
        vertices, faces, _, _ = marching_cubes(block, 0.5, method="lorensen")
        a, b, c = (vertices[faces[:, corner]].astype(float) for corner in range(3))
        patches[code] = np.cross(b - a, c - a) / 2
    return patches
