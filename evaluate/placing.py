"""Labels on another grid of the same space: for a truth that was drawn on other voxels than the prediction's."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from preprocess.geometry import Grid
from preprocess.volume import TUMOR, LabelMap

#: One half, less what the header of a file rounds an origin by.
_HALF = 0.5 - 1e-4

_UNITS = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


def placed_on(labels: LabelMap, grid: Grid) -> LabelMap:
    """`labels` at the voxels of `grid`, wherever these lie: background outside the labels' own grid.

    Each class >= k is interpolated linearly between voxel centres and kept where it reaches one half, so a tumour stays
    inside its liver. A much coarser `grid` loses what is smaller than its voxels. Works slice by slice.
    """
    places = [np.array(labels.grid.index_at(grid.position_mm(at))) for at in ((0, 0, 0), *_UNITS)]
    first, steps = places[0], [place - places[0] for place in places[1:]]
    out = np.zeros(grid.shape, np.uint8)
    for least in range(1, TUMOR + 1):
        mask = (labels.array >= least).view(np.uint8)
        for z, plane in enumerate(out):
            share = ndimage.affine_transform(
                mask,
                np.stack(steps, axis=1),  # column i: what one step along axis i of `grid` is in the labels' voxels
                offset=first + z * steps[0],
                output_shape=(1, *plane.shape),
                output=np.float32,
                order=1,
                mode="grid-constant",
            )
            plane += share[0] >= _HALF
    return LabelMap(out, grid)


def beyond_mm(labels: LabelMap, grid: Grid) -> float:
    """How far the liver of `labels` (label >= 1) reaches beyond the voxels of `grid`; 0 where all of it lies there.

    By the first and the last of its voxels in every row. What ends within a voxel of either grid beyond the edge counts
    as there: two grids of one scan need not end at one place.
    """
    spacing_mm = np.array(grid.spacing_mm)
    allowed = 0.5 + max(*grid.spacing_mm, *labels.grid.spacing_mm) / spacing_mm
    places = [np.array(grid.index_at(labels.grid.position_mm(at))) for at in ((0, 0, 0), *_UNITS)]
    steps = np.stack([place - places[0] for place in places[1:]])
    most = 0.0
    for z, plane in enumerate(labels.array > 0):
        rows = np.flatnonzero(plane.any(axis=1))
        ends = plane[rows].argmax(axis=1), plane.shape[1] - 1 - plane[rows][:, ::-1].argmax(axis=1)
        for columns in ends if rows.size else ():
            at = places[0] + np.column_stack([np.full_like(rows, z), rows, columns]) @ steps
            outside = np.maximum(-at, at - np.array(grid.shape) + 1) - allowed
            most = max(most, float((outside * spacing_mm).max()))
    return most
