"""Small label maps, in memory and as files. Dimensions and spacings differ along every axis, so no swap can pass."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from preprocess.geometry import Grid, Index
from preprocess.volume import LabelMap

Voxels = Mapping[Index, int]

GRID = Grid(shape=(2, 3, 4), spacing_mm=(5.0, 2.0, 0.5), origin_mm=(10.0, -20.0, 30.0))


def _labels(voxels: Voxels, grid: Grid = GRID) -> LabelMap:
    array = np.zeros(grid.shape, np.uint8)
    for index, value in voxels.items():
        array[index] = value
    return LabelMap(array, grid)


def _write(path: Path, voxels: Voxels, shift_mm: float = 0.0) -> Path:
    labels = _labels(voxels)
    image = SimpleITK.GetImageFromArray(labels.array.copy())
    image.SetSpacing(labels.grid.spacing_mm[::-1])
    x, y, z = labels.grid.origin_mm
    image.SetOrigin((x + shift_mm, y, z))
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.fixture
def labels() -> Callable[..., LabelMap]:
    """`labels({(z, y, x): class})`: a label map of 2 x 3 x 4 voxels of 5 x 2 x 0.5 mm (0.005 mL)."""
    return _labels


@pytest.fixture
def write() -> Callable[..., Path]:
    """`write(path, {(z, y, x): class}, shift_mm=0)`: the same as a file; missing folders are made."""
    return _write
