"""An array and its place in space as one thing: `Volume` for CT in HU, `LabelMap` for classes. Both are read-only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from preprocess.geometry import Box, Grid, reoriented

#: The classes of a merged segmentation, as in LiTS.
BACKGROUND, LIVER, TUMOR = 0, 1, 2


@dataclass(frozen=True, eq=False)
class _Gridded:
    array: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise ValueError(f"array of shape {self.array.shape} on a grid of shape {self.grid.shape}")
        view = self.array.view()
        view.flags.writeable = False
        object.__setattr__(self, "array", view)

    def cropped(self, box: Box) -> Self:
        """The part inside `box`, at the same place in space (a view, no copy)."""
        return type(self)(self.array[box.slices], self.grid.cropped(box))

    def reoriented(self, target: Grid) -> Self:
        """The same voxels in the axis order and directions of `target` (a view, no copy)."""
        return type(self)(reoriented(self.array, self.grid, target), target)


class Volume(_Gridded):
    """CT in Hounsfield units, (z, y, x), integer or float32."""


class LabelMap(_Gridded):
    """Classes as uint8 (z, y, x): 0 background, 1 liver, 2 tumour. Raises ValueError for another data type."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.array.dtype != np.uint8:
            raise ValueError(f"labels must be uint8, not {self.array.dtype}")

    def ml(self, at_least: int) -> float:
        """Volume in mL of the voxels whose class is `at_least` or higher (1: liver with tumour, 2: tumour)."""
        # Slice by slice: a mask of all of a long scan is hundreds of MB.
        return float(sum(int(np.count_nonzero(plane >= at_least)) for plane in self.array) * self.grid.voxel_ml)


def content_id(volume: Volume | LabelMap) -> str:
    """16 hex digits that identify the voxel values and the shape of an image in canonical orientation."""
    digest = hashlib.sha256(repr(volume.array.shape).encode())
    for slab in volume.array:
        digest.update(np.ascontiguousarray(slab, np.float32).tobytes())
    return digest.hexdigest()[:16]
