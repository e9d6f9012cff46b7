"""The tumours of a mask one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from preprocess.components import components
from preprocess.geometry import Box
from preprocess.volume import TUMOR, LabelMap, Volume


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
