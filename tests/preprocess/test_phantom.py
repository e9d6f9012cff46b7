"""The synthetic abdomen: its anatomy is judged on voxels, not on the formulas that painted them."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from preprocess.geometry import CANONICAL_AXES
from preprocess.phantom import Phantom, make_phantom

SEEDS = range(8)


@cache
def phantom(seed: int) -> Phantom:
    return make_phantom(seed)


@cache
def straight() -> Phantom:
    return make_phantom(5, tumors=4, oriented=False)


def lesion_diameters_mm(case: Phantom) -> list[float]:
    """Diameters of the balls as large as each component."""
    parts, _ = ndimage.label(case.labels.array == 2)
    volumes_mm3 = np.bincount(parts.ravel())[1:] * case.labels.grid.voxel_ml * 1000
    return [float((6 * volume / np.pi) ** (1 / 3)) for volume in volumes_mm3]


def lesion_extents_mm(case: Phantom) -> list[float]:
    """Longest side of the box around each component."""
    parts, _ = ndimage.label(case.labels.array == 2)
    spacing = case.labels.grid.spacing_mm
    boxes = ndimage.find_objects(parts)
    return [max((s.stop - s.start - 1) * mm for s, mm in zip(box, spacing, strict=True)) for box in boxes]


def hu_around(case: Phantom, position_mm: tuple[float, float, float], radius: int = 2) -> float:
    """Median HU around a place given from the middle of a canonical grid, (x, y, z)."""
    grid = case.volume.grid
    middle = grid.position_mm([(n - 1) / 2 for n in grid.shape])
    index = grid.index_at([m + p for m, p in zip(middle, position_mm, strict=True)])
    box = tuple(slice(round(i) - radius // 2, round(i) + radius // 2 + 1) for i in index)
    return float(np.median(case.volume.array[box]))


def test_a_seed_gives_the_same_case_each_time_and_another_seed_another() -> None:
    again, first = make_phantom(6), phantom(6)
    assert again.volume.grid == first.volume.grid
    assert np.array_equal(again.volume.array, first.volume.array)
    assert np.array_equal(again.labels.array, first.labels.array)
    assert not np.array_equal(phantom(7).volume.array, first.volume.array)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_case_is_a_ct_with_a_whole_liver_inside(seed: int) -> None:
    case = phantom(seed)
    assert case.volume.array.dtype == np.int16
    assert case.labels.grid == case.volume.grid
    assert set(np.unique(case.labels.array)) <= {0, 1, 2}
    assert 900 < case.labels.ml(1) < 2300
    assert ndimage.label(case.labels.array > 0)[1] == 1
    inner = case.labels.array[1:-1, 1:-1, 1:-1]
    assert np.count_nonzero(inner) == np.count_nonzero(case.labels.array), "the liver is cut off by the picture"
    assert max(case.volume.grid.shape) <= 220


@pytest.mark.parametrize("seed", SEEDS)
def test_tumours_lie_in_the_liver_darker_than_it_and_8_to_50_mm_large(seed: int) -> None:
    case = phantom(seed)
    hu, labels = case.volume.array, case.labels.array
    shell = ndimage.binary_dilation(labels == 2) & (labels != 2)
    assert not shell.any() or np.mean(labels[shell] == 1) > 0.7
    assert 95 < hu[labels == 1].mean() < 130
    assert len(lesion_diameters_mm(case)) <= 5
    for diameter, extent in zip(lesion_diameters_mm(case), lesion_extents_mm(case), strict=True):
        assert diameter >= 8
        assert extent <= 50
    if (labels == 2).any():
        assert np.median(hu[labels == 2]) < np.median(hu[labels == 1]) - 30


def test_the_organs_have_the_hu_of_a_contrast_ct() -> None:
    case = straight()
    # The places are far inside of each organ, which varies by some millimetres.
    expected = {
        "spine": ((0, 56, 12), 60, 520),
        "right lung": ((-105, 35, 75), -1000, -700),
        "spleen": ((98, 50, 12), 98, 140),
        "right kidney": ((-64, 46, -60), 140, 185),
        "left kidney": ((64, 46, -42), 140, 185),
        "outside": ((-163, -112, 0), -1030, -970),
    }
    for organ, (place, low, high) in expected.items():
        assert low < hu_around(case, place) < high, organ
    body = case.volume.array[ndimage.binary_erosion(case.volume.array > -200, iterations=2)]
    shares = {
        name: np.mean((body > low) & (body < high)) for name, low, high in (("fat", -140, -60), ("bone", 250, 900))
    }
    assert shares["fat"] > 0.15
    assert 0.01 < shares["bone"] < 0.15


def test_the_noise_is_that_of_a_ct_and_correlated() -> None:
    case = straight()
    air = case.volume.array[5:-5, :8, :8].astype(float) + 1000
    assert 8 < air.std() < 17
    assert np.mean(air[:, :, 1:] * air[:, :, :-1]) > 0.3 * air.var()


def test_the_number_of_tumours_can_be_chosen_without_changing_the_body() -> None:
    free = make_phantom(5, tumors=0, oriented=False)
    assert not (free.labels.array == 2).any()
    assert len(lesion_diameters_mm(straight())) == 4
    assert np.array_equal(free.labels.array > 0, straight().labels.array > 0)
    outside = straight().labels.array == 0
    outside &= ~ndimage.binary_dilation(straight().labels.array == 2, iterations=6)  # the blur reaches out of a tumour
    assert np.array_equal(free.volume.array[outside], straight().volume.array[outside])


def test_a_negative_number_of_tumours_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 tumours"):
        make_phantom(0, tumors=-1)


def test_orientation_and_spacing_vary_between_cases_and_can_be_held_canonical() -> None:
    grids = [phantom(seed).volume.grid for seed in SEEDS]
    assert len({grid.spacing_mm for grid in grids}) == len(grids)
    flat = [np.abs(np.array(grid.axes)) for grid in grids]
    assert any(((axes > 0.01) & (axes < 0.2)).any() for axes in flat), "no oblique case"
    assert any(axes[0, 2] < 0.5 for axes in flat), "no case with permuted axes"
    assert any((np.array(grid.axes) < -0.9).any() for grid in grids), "no case with a flipped axis"
    assert all(np.min(axes.max(axis=1)) > np.cos(np.radians(10.01)) for axes in flat)
    assert straight().volume.grid.axes == CANONICAL_AXES


def test_the_liver_is_on_the_right_and_below_the_lungs_whatever_the_orientation() -> None:
    for seed in SEEDS:
        case = phantom(seed)
        target = case.volume.grid.canonical()
        hu, liver = case.volume.reoriented(target).array, case.labels.reoriented(target).array > 0
        centre_z, _, centre_x = ndimage.center_of_mass(liver)
        assert centre_x < 0.45 * hu.shape[2]
        assert centre_z < ndimage.center_of_mass((hu > -950) & (hu < -750))[0]
