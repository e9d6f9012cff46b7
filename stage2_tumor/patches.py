"""What stage 2 trains on: patches of the liver's surroundings, centred on a lesion, in the liver, or beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.components import components
from preprocess.geometry import Box, Grid

LabelArray = NDArray[np.uint8]

#: Training keeps more around the liver than prediction sees: stomach, heart and kidney must be known as neither liver
#: nor tumour, and rotated patches need something to show in their corners.
MARGIN_MM = 40.0
VALIDATION_MARGIN_MM = 10.0
#: How far from the liver a patch "outside" is centred at most.
NEAR_VOXELS = 20


def training_box(labels: LabelArray, grid: Grid) -> Box:
    """The part of a scan that training keeps: the true liver's box with `MARGIN_MM` around it."""
    box = Box.around(labels)
    return Box.whole(grid) if box is None else box.grown(MARGIN_MM, grid)


def validation_box(labels: LabelArray, grid: Grid) -> Box:
    """The part of a training array on which a model is judged: the true region of interest, as prediction has it."""
    box = Box.around(labels)
    return Box.whole(grid) if box is None else box.grown(VALIDATION_MARGIN_MM, grid)


def _lesion(labels: LabelArray) -> NDArray[Any]:
    """As many candidates from every lesion, whatever its size: one scan may hold nearly all tumour voxels."""
    numbered, sizes = components(labels == 2)
    order = np.argsort(numbered, axis=None, kind="stable")[sizes[0] :]
    lesions = np.split(order, np.cumsum(sizes[1:])[:-1]) if order.size else []
    draw = np.random.default_rng(0)
    return np.concatenate([np.resize(draw.permutation(lesion)[:64], 64) for lesion in lesions] or [order])


def _liver(labels: LabelArray) -> NDArray[Any]:
    return np.flatnonzero(labels > 0)


def _outside(labels: LabelArray) -> NDArray[Any]:
    """What lies beside the liver, where prediction looks; the air around the body teaches nothing."""
    every = 2  # the distance is not needed at every voxel
    coarse = labels[::every, ::every, ::every]
    if not coarse.any():
        return np.flatnonzero(labels == 0)
    near = ndimage.distance_transform_edt(coarse == 0) * every <= NEAR_VOXELS
    chosen = np.argwhere(near & (coarse == 0)) * every
    return np.asarray(np.ravel_multi_index(tuple(chosen.T), labels.shape))


#: From where a patch's centre is drawn: name to the flat indices of the candidates in `labels` (z, y, x).
POOLS: Mapping[str, Callable[[LabelArray], NDArray[Any]]] = {"lesion": _lesion, "liver": _liver, "outside": _outside}
