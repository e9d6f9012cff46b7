"""What stage 1 trains on: patches of the whole scan, centred in the liver or anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.geometry import Box, Grid

LabelArray = NDArray[np.uint8]


def training_box(labels: LabelArray, grid: Grid) -> Box:
    """The part of a scan that training keeps: all of it."""
    return Box.whole(grid)


def validation_box(labels: LabelArray, grid: Grid) -> Box:
    """The part of a training array on which a model is judged: all of it."""
    return Box.whole(grid)


def _liver(labels: LabelArray) -> NDArray[Any]:
    return np.flatnonzero(labels > 0)


def _anywhere(labels: LabelArray) -> NDArray[Any]:
    return np.arange(labels.size)


#: From where a patch's centre is drawn: name to the flat indices of the candidates in `labels` (z, y, x).
POOLS: Mapping[str, Callable[[LabelArray], NDArray[Any]]] = {"liver": _liver, "anywhere": _anywhere}
