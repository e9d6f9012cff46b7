"""Anatomy on the wrong side, on a synthetic abdomen whose array is turned while its header stays."""

from functools import cache

import numpy as np
import pytest

from preprocess.anatomy import misplaced
from preprocess.geometry import Grid
from preprocess.phantom import make_phantom
from preprocess.volume import LabelMap, Volume


@cache
def phantom():
    return make_phantom(5, tumors=1, oriented=False)


def found(order=(slice(None),), clip=(-1024, 3071)):
    volume, labels = phantom().volume, phantom().labels
    turned = Volume(volume.array[order].clip(*clip), volume.grid), LabelMap(labels.array[order], volume.grid)
    return list(misplaced(*turned))


BACKWARDS = slice(None, None, -1)
FLIPS = {
    "z": ((BACKWARDS,), "the lungs' air is below the liver"),
    "y": ((slice(None), BACKWARDS), "the bone in the body's middle lies"),
    "x": ((slice(None), slice(None), BACKWARDS), "the liver lies"),
}


@pytest.mark.parametrize("clip", [(-1024, 3071), (-160, 240)])
def test_a_scan_as_it_should_be(clip):
    assert found(clip=clip) == []


@pytest.mark.parametrize("clip", [(-1024, 3071), (-160, 240)])
@pytest.mark.parametrize("axis", "zyx")
def test_one_flipped_axis(axis, clip):
    order, text = FLIPS[axis]
    (told,) = found(order, clip)
    assert told.startswith(text)


def test_turned_by_half_a_turn_as_an_identity_affine_does():
    told = found((slice(None), BACKWARDS, BACKWARDS))
    assert [text.split(" lies ")[0] for text in told] == ["the liver", "the bone in the body's middle"]


def test_nothing_is_said_without_liver_or_body():
    grid = Grid((5, 6, 7), (5.0, 4.0, 4.0))
    liver = np.zeros(grid.shape, np.uint8)
    liver[2, 3, 5] = 1
    tissue = np.full(grid.shape, 40, np.int16)
    assert list(misplaced(Volume(tissue, grid), LabelMap(liver * 0, grid))) == []
    assert list(misplaced(Volume(tissue - 1000, grid), LabelMap(liver, grid))) == []


@pytest.mark.parametrize(("rows", "told"), [(12, 0), (30, 1)])  # 21 cm2 of bowel gas; 53 of what must be lung
def test_some_gas_in_the_bowel_is_no_lung(rows, told):
    grid = Grid((12, 60, 80), (4.0, 4.0, 4.0))
    hu, liver = np.full(grid.shape, -1000, np.int16), np.zeros(grid.shape, np.uint8)
    hu[:, 5:55, 8:72] = 40
    hu[:3, 10 : 10 + rows, 50:61] = -900
    liver[:, 15:45, 12:30] = 1
    assert len(list(misplaced(Volume(hu, grid), LabelMap(liver, grid)))) == told
