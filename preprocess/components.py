"""Connected parts of a mask. Neighbours share a face (6-connectivity), as in the LiTS scorer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.fast import numbered
from preprocess.geometry import Box

Mask = NDArray[np.bool_]


def components(mask: Mask) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Numbered 6-connected parts of `mask` (z, y, x) and the voxel count of each number (index 0: background)."""
    parts, count = numbered(mask)
    sizes = np.bincount(parts[mask], minlength=count + 1)  # of the whole array it would make a copy, twice as large
    sizes[0] = mask.size - sizes.sum()
    return parts, sizes


def largest(mask: Mask) -> Mask:
    """Only the largest part of `mask`; of several equally large ones the first in (z, y, x) order."""
    parts, sizes = components(mask)
    if len(sizes) < 2:
        return np.zeros_like(mask)
    return np.asarray(parts == 1 + int(np.argmax(sizes[1:])))


def fill_holes(mask: Mask) -> Mask:
    """`mask` with every background part filled that does not reach the border of its bounding box, in 3D."""
    box = Box.around(mask)
    if box is None:
        return mask.copy()
    out = mask.copy()
    parts, _ = numbered(np.pad(~mask[box.slices], 1, constant_values=True))
    out[box.slices] = parts[1:-1, 1:-1, 1:-1] != 1  # the first voxel is outside, and numbers go by first voxels
    return out
