"""Small label maps, in memory and as files. Dimensions and spacings differ along every axis, so no swap can pass."""

import dataclasses
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK

from evaluate.account import StageAccount
from evaluate.fates import LesionFate
from evaluate.waterfall import STEPS, Waterfall
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


def _waterfall(structure, **losses):
    """The waterfall in which only these steps lose or gain, in Dice."""
    dice = [Fraction(1)]
    for step in STEPS[structure]:
        dice.append(dice[-1] - Fraction(losses.get(step.key, 0)))
    assert losses.keys() <= {step.key for step in STEPS[structure]}
    return Waterfall(STEPS[structure], tuple(dice))


_PERFECT = StageAccount(
    case="volume-1",
    held_out=True,
    stage1_liver_dice_coarse=1.0,
    stage1_liver_dice=1.0,
    roi_liver_share=1.0,
    roi_tumor_share=1.0,
    stage2_tumor_dice_true_roi=1.0,
    stage2_tumor_dice_predicted_roi=1.0,
    merged_liver_dice=1.0,
    merged_tumor_dice=1.0,
    cleanup_liver_gain=0.0,
    cleanup_tumor_gain=0.0,
    liver=_waterfall("liver"),
    tumor=_waterfall("tumor"),
    lesions=(),
)
_SEEN = dataclasses.replace(_PERFECT, case="volume-2", held_out=False)
_USUAL = dataclasses.replace(
    _PERFECT,
    case="=volume-3",
    stage1_liver_dice=0.9,
    stage2_tumor_dice_true_roi=0.7,
    stage2_tumor_dice_predicted_roi=0.5,
    merged_liver_dice=0.95,
    merged_tumor_dice=0.625,
    cleanup_liver_gain=-0.0625,
    cleanup_tumor_gain=0.125,
    liver=_waterfall("liver", cleanup="0.0625", stage2_outside="-0.0125"),
    tumor=_waterfall("tumor", missed="0.3", own_roi="0.2", cleanup="-0.125"),
    lesions=(LesionFate(1, 2.5, 0.75, "found"), LesionFate(2, 0.5, 0.0, "missed")),
)
_LIVER_ONLY = dataclasses.replace(
    _PERFECT,
    case="volume-4",
    roi_tumor_share=None,
    stage2_tumor_dice_true_roi=None,
    stage2_tumor_dice_predicted_roi=None,
    merged_tumor_dice=None,
    cleanup_tumor_gain=None,
    tumor=None,
)


@pytest.fixture
def accounts() -> SimpleNamespace:
    """Accounts of made-up numbers: `perfect`, `seen`, `usual`, `liver_only`; and `waterfall(structure, step=loss)`."""
    return SimpleNamespace(perfect=_PERFECT, seen=_SEEN, usual=_USUAL, liver_only=_LIVER_ONLY, waterfall=_waterfall)
