"""The two stages as the learning machine sees them: names, regions, where patches come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import stage1_liver.patches
import stage1_liver.recipe
import stage2_tumor.patches
import stage2_tumor.recipe
from preprocess.build import TrainingBox


@dataclass(frozen=True)
class Stage:
    """What differs between the stages for training; `goal` is the region whose Dice decides which model is best."""

    name: str
    regions: tuple[str, ...]
    goal: str
    training_box: TrainingBox
    validation_box: TrainingBox
    pools: Mapping[str, Callable[[NDArray[np.uint8]], NDArray[Any]]]


LIVER = Stage(
    name=stage1_liver.recipe.NAME,
    regions=stage1_liver.recipe.REGIONS,
    goal="liver",
    training_box=stage1_liver.patches.training_box,
    validation_box=stage1_liver.patches.validation_box,
    pools=stage1_liver.patches.POOLS,
)
TUMOR = Stage(
    name=stage2_tumor.recipe.NAME,
    regions=stage2_tumor.recipe.REGIONS,
    goal="tumor",
    training_box=stage2_tumor.patches.training_box,
    validation_box=stage2_tumor.patches.validation_box,
    pools=stage2_tumor.patches.POOLS,
)
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in (LIVER, TUMOR)}
