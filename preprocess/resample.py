"""Linear resampling between two grids that share a corner, slab by slab, so that memory is one slice, not a volume.

Going to a coarser grid, the linear kernel is widened to the new spacing, so that every voxel counts and noise averages
out (the antialiased "triangle" filter of image libraries); going finer, it is plain linear interpolation. The physical
corner stays in place (see `Grid.respaced`). Positions come from the ratio of spacings alone, never from the origin:
float noise of an origin cannot make two orientations of one scan differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from preprocess.geometry import Box, Grid
from preprocess.volume import LabelMap

FloatArray = NDArray[np.float32]
Sparse = Any  # scipy.sparse.csr_array, of which the library states no type

#: Two grids share a corner when their outer corners are closer than this many millimetres.
CORNER_TOLERANCE_MM = 1e-2


def _weights(count: int, source: float, target: float, span: tuple[int, int]) -> FloatArray:
    """Matrix (span, count): how much each of `count` source samples gives to the target samples of `span`."""
    scale = target / source
    centres = (np.arange(*span) + 0.5) * scale - 0.5
    # Beyond the outermost centres the outermost sample stands for what is missing.
    centres = np.clip(centres, 0, count - 1)
    distance = np.abs(np.arange(count)[None, :] - centres[:, None])
    weights = np.clip(1 - distance / max(1.0, scale), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _check_corner(source: Grid, target: Grid) -> None:
    corners = [np.array(g.position_mm((-0.5, -0.5, -0.5))) for g in (source, target)]
    if np.abs(corners[0] - corners[1]).max() > CORNER_TOLERANCE_MM or not np.allclose(source.axes, target.axes):
        raise ValueError(f"grids do not share a corner and axes: {source} and {target}")


def slabs(
    array: NDArray[Any],
    source: Grid,
    target: Grid,
    box: Box | None = None,
    clip: tuple[float, float] | None = None,
) -> Iterator[FloatArray]:
    """The slices (y, x) of `array`, resampled from `source` to the part `box` (default: all) of `target`, one by one.

    `array` is (z, y, x) of any scalar type; with `clip` its values are held in that range before they are mixed.
    Raises ValueError when the grids do not share a corner or `array` does not fit `source`.
    """
    _check_corner(source, target)
    if array.shape != source.shape:
        raise ValueError(f"array of shape {array.shape} on a grid of shape {source.shape}")
    box = box or Box.whole(target)
    z, y, x = (
        _weights(source.shape[a], source.spacing_mm[a], target.spacing_mm[a], (box.start[a], box.stop[a]))
        for a in range(3)
    )
    cut_y, y = _support(y)
    cut_x, x = _support(x)
    held: dict[int, FloatArray] = {}
    for row in z:
        near = [int(index) for index in np.flatnonzero(row)]
        held = {k: held[k] if k in held else _in_plane(array[k, cut_y, cut_x], y, x, clip) for k in near}
        out = row[near[0]] * held[near[0]]
        for k in near[1:]:
            out += row[k] * held[k]
        yield out


def _in_plane(plane: NDArray[Any], y: Sparse, x: Sparse, clip: tuple[float, float] | None) -> FloatArray:
    plane = plane.astype(np.float32)
    if clip is not None:
        np.clip(plane, *clip, out=plane)
    return np.ascontiguousarray((x @ (y @ plane).T).T)


def _support(weights: FloatArray) -> tuple[slice, Sparse]:
    """The columns that are used at all, as a slice and as the narrower matrix.

    Sparse, for two of a hundred weights are not 0; and a library for dense matrices has threads of its own, which on a
    busy machine waited for each other twenty times as long as they worked.
    """
    used = np.flatnonzero(weights.any(axis=0))
    cut = slice(int(used[0]), int(used[-1]) + 1)
    return cut, sparse.csr_array(weights[:, cut])


def resampled(array: NDArray[Any], source: Grid, target: Grid, box: Box | None = None) -> FloatArray:
    """All of `slabs` as one float32 array (z, y, x)."""
    shape = (box or Box.whole(target)).shape
    out = np.empty(shape, np.float32)
    for index, slab in enumerate(slabs(array, source, target, box)):
        out[index] = slab
    return out


def resample_labels(labels: LabelMap, target: Grid) -> LabelMap:
    """Classes on another grid: each class >= k is interpolated as 0/1 and kept where it reaches one half.

    Smoother than nearest neighbour between thick slices, and nested classes (tumour in liver) stay nested.
    """
    out = np.zeros(target.shape, np.uint8)
    for least in range(1, int(labels.array.max()) + 1):
        for index, slab in enumerate(slabs(labels.array >= least, labels.grid, target)):
            out[index] += slab >= 0.5
    return LabelMap(out, target)
