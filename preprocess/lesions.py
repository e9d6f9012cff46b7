"""The tumours of a mask one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.components import Mask, components
from preprocess.geometry import Box, Triple
from preprocess.volume import TUMOR, LabelMap, Volume

#: A lesion is compared with what lies between these distances from it.
AROUND_MM = (3.0, 10.0)
#: Of larger surroundings every second, third, ... voxel of each axis is looked at.
_VOXELS = 500_000


def contrasts(numbered: NDArray[np.int32], tissue: Mask, hu: NDArray[Any], spacing_mm: Triple) -> NDArray[np.float64]:
    """By how many HU each part of `numbered` (z, y, x), whose parts count from 1, lies above the `tissue` around it, at
    `AROUND_MM`; by number. NaN for a part without such tissue, and for 0.

    Medians, of the part its deeper half: at its edge a lesion fades into the liver, and networks draw small ones wide.
    """
    out = np.full(int(numbered.max(initial=0)) + 1, np.nan)
    for number, box in enumerate(ndimage.find_objects(numbered), 1):
        thin, every = _thinned(grown(box, AROUND_MM[1], spacing_mm), numbered)
        inside = numbered[thin] == number
        if not inside.any():
            continue
        away = ndimage.distance_transform_edt(~inside, [s * every for s in spacing_mm])
        around = tissue[thin] & (away > AROUND_MM[0]) & (away <= AROUND_MM[1])
        if around.any():
            core = _deeper_half(inside, [s * every for s in spacing_mm])
            out[number] = np.median(hu[thin][core]) - np.median(hu[thin][around])
    return out


def cores_hu(numbered: NDArray[np.int32], hu: NDArray[Any], spacing_mm: Triple) -> NDArray[np.float64]:
    """The median HU of each part's deeper half, by number as in `contrasts`; NaN for 0 and for what is no part."""
    out = np.full(int(numbered.max(initial=0)) + 1, np.nan)
    for number, box in enumerate(ndimage.find_objects(numbered), 1):
        if box is None:
            continue
        thin, every = _thinned(grown(box, min(spacing_mm), spacing_mm), numbered)
        inside = numbered[thin] == number
        if inside.any():
            out[number] = np.median(hu[thin][_deeper_half(inside, [s * every for s in spacing_mm])])
    return out


def _thinned(box: tuple[slice, ...], numbered: NDArray[np.int32]) -> tuple[tuple[slice, ...], int]:
    """`box` with every second, third, ... voxel of each axis alone, if it is large, and that step."""
    every = math.ceil((numbered[box].size / _VOXELS) ** (1 / 3))
    return tuple(slice(axis.start, axis.stop, every) for axis in box), every


def _deeper_half(inside: Mask, spacing_mm: Sequence[float]) -> Mask:
    """The voxels of `inside` (z, y, x) that lie at least as deep in it as its median."""
    depth = ndimage.distance_transform_edt(inside, spacing_mm)
    deep: Mask = depth >= np.median(depth[inside])
    return inside & deep


def grown(box: tuple[slice, ...], mm: float, spacing_mm: Triple) -> tuple[slice, ...]:
    """The slices (z, y, x) of `box` and what lies within `mm` of it; they may end beyond the array."""
    reach = (math.ceil(mm / s) for s in spacing_mm)
    return tuple(slice(max(0, axis.start - n), axis.stop + n) for axis, n in zip(box, reach, strict=True))


def lesion_table(labels: LabelMap, volume: Volume) -> list[dict[str, Any]]:
    """Each 6-connected tumour of `labels`, largest first: `id` from 1, `volume_ml`, `centroid_mm`, `mean_hu`.

    The centroid is a world position (x, y, z) in mm, LPS. Both arguments share a grid.
    """
    liver = Box.around(labels.array)
    if liver is None:
        return []
    labels, volume = labels.cropped(liver), volume.cropped(liver)  # a mask of all of a long scan is hundreds of MB
    box = Box.around(labels.array == TUMOR)
    if box is None:
        return []
    numbered, sizes = components(labels.array[box.slices] == TUMOR)
    hu, grid = volume.array[box.slices], labels.grid.cropped(box)
    rows = []
    for number, lesion in enumerate(np.argsort(-sizes[1:], kind="stable") + 1, 1):
        where = np.nonzero(numbered == lesion)
        rows.append(
            {
                "id": number,
                "volume_ml": round(float(sizes[lesion] * grid.voxel_ml), 4),
                "centroid_mm": [round(v, 2) for v in grid.position_mm([float(axis.mean()) for axis in where])],
                "mean_hu": round(float(hu[where].mean()), 1),
            }
        )
    return rows
