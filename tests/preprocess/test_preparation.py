import math

import numpy as np
import pytest

from preprocess.errors import UsageError
from preprocess.geometry import Grid
from preprocess.preparation import Preparation, SpacingPlan, continued, share_shown
from preprocess.volume import Volume

GRID = Grid((2, 3, 4), (2.0, 3.0, 1.0), (10.0, -20.0, 30.0))


def test_the_window_becomes_minus_one_to_one():
    hu = np.array([[-2000, -160, 40], [140, 240, 3000]], np.int16)
    out = Preparation((1.0, 1.0, 1.0), (-160.0, 240.0)).normalised(hu)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [[-1, -1, 0], [0.5, 1, 1]])


def test_clipped_before_it_is_resampled():
    hu = np.zeros(GRID.shape, np.int16)
    hu[1] = 3000
    out = Preparation((1.0, 3.0, 1.0), (-100.0, 100.0)).prepared(Volume(hu, GRID))
    # 0 .25 .75 1 of the clipped step of 100; resampling first would give 0 1 1 1
    np.testing.assert_allclose(out[:, 1, 2], [0, 0.25, 0.75, 1], atol=1e-6)


def test_a_scan_and_its_clipped_copy_are_prepared_alike():
    hu = np.random.default_rng(1).integers(-1024, 3000, GRID.shape).astype(np.int16)
    preparation = Preparation((1.5, 2.0, 2.5), (-160.0, 240.0))
    one, other = (preparation.prepared(Volume(a, GRID)) for a in (hu, hu.clip(-160, 240)))
    np.testing.assert_array_equal(one, other)
    assert one.min() >= -1
    assert one.max() <= 1


def test_prepared_is_float32_on_the_working_grid():
    preparation = Preparation((1.0, 1.5, 4.0), (-100.0, 100.0))
    assert preparation.working_grid(GRID) == GRID.respaced((1.0, 1.5, 4.0))
    out = preparation.prepared(Volume(np.full(GRID.shape, 50, np.int16), GRID))
    assert (out.shape, out.dtype) == ((4, 6, 1), np.float32)
    np.testing.assert_allclose(out, 0.5, rtol=1e-6)


def test_prepared_axes_are_not_swapped():
    hu = np.zeros(GRID.shape, np.int16)
    hu[1, 2, 0] = 100
    out = Preparation(GRID.spacing_mm, (-100.0, 100.0)).prepared(Volume(hu, GRID))
    assert np.argwhere(out == 1).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize(
    ("spacing", "window", "message"),
    [
        ((1.0, 0.0, 1.0), (-1.0, 1.0), "spacing_mm"),
        ((1.0, 1.0, -1.0), (-1.0, 1.0), "spacing_mm"),
        ((1.0, 1.0, 1.0), (1.0, 1.0), "window_hu"),
        ((1.0, 1.0, 1.0), (2.0, 1.0), "window_hu"),
    ],
)
def test_values_that_cannot_work_are_refused(spacing, window, message):
    with pytest.raises(UsageError, match=message):
        Preparation(spacing, window)


@pytest.mark.parametrize(
    ("spacing", "window", "message"),
    [
        ((math.nan, 1.0, 1.0), (-1.0, 1.0), "spacing_mm"),
        ((1.0, 1.0, math.nan), (-1.0, 1.0), "spacing_mm"),
        ((1.0, math.inf, 1.0), (-1.0, 1.0), "spacing_mm"),
        ((1.0, 1.0, 1.0), (math.nan, 1.0), "window_hu"),
        ((1.0, 1.0, 1.0), (-1.0, math.nan), "window_hu"),
        ((1.0, 1.0, 1.0), (-math.inf, 1.0), "window_hu"),
        ((1.0, 1.0, 1.0), (-1.0, math.inf), "window_hu"),
    ],
)
def test_values_that_are_not_finite_are_refused(spacing, window, message):
    with pytest.raises(UsageError, match=message):
        Preparation(spacing, window)


def plan(finest, coarsest, window=(-160.0, 240.0)):
    return SpacingPlan(finest, coarsest, window)


def test_the_median_spacing_per_axis_is_held_between_the_limits():
    spacings = [(5.0, 0.6, 0.9), (1.0, 0.7, 0.8), (2.0, 0.5, 0.7)]
    assert plan((0.5,) * 3, (9.0,) * 3).resolved(spacings) == Preparation((2.0, 0.6, 0.8), (-160.0, 240.0))
    assert plan((2.5, 0.65, 0.5), (9.0, 9.0, 0.75)).resolved(spacings).spacing_mm == (2.5, 0.65, 0.75)
    assert plan((3.0,) * 3, (3.0,) * 3).resolved(spacings).spacing_mm == (3.0, 3.0, 3.0)


def test_the_median_is_rounded_to_micrometres():
    assert plan((0.1,) * 3, (9.0,) * 3).resolved([(1.23456, 0.70312, 0.7)]).spacing_mm == (1.235, 0.703, 0.7)


@pytest.mark.parametrize(
    ("finest", "coarsest", "window", "message"),
    [
        ((1.0, 2.0, 1.0), (1.0, 1.5, 1.0), (-1.0, 1.0), "finest_mm"),
        ((0.0, 1.0, 1.0), (1.0, 1.0, 1.0), (-1.0, 1.0), "finest_mm"),
        ((1.0, math.nan, 1.0), (1.0, 1.0, 1.0), (-1.0, 1.0), "finest_mm"),
        ((1.0, 1.0, 1.0), (1.0, 1.0, math.inf), (-1.0, 1.0), "coarsest_mm"),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, -1.0), "window_hu"),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (math.nan, 1.0), "window_hu"),
    ],
)
def test_plans_that_cannot_work_are_refused(finest, coarsest, window, message):
    with pytest.raises(UsageError, match=message):
        plan(finest, coarsest, window)


@pytest.mark.parametrize(("slices", "more"), [(1, 6), (9, 6), (16, 2), (18, 1), (19, 1), (20, 0), (300, 0)])
def test_low_images_are_continued_at_both_ends(slices, more):
    """Of 5 mm a slice: to 100 mm in all, by 30 mm at an end at most."""
    image = np.arange(slices, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
    where, seen = image > 0, []

    def infer(image, where):
        seen.append((image, where))
        return np.stack([image, 2 * image])

    for places in (where, None):
        out = continued(infer, 5.0)(image, places)
        np.testing.assert_array_equal(out, np.stack([image, 2 * image]))
    grid = Grid((slices, 2, 3), (5.0, 1.0, 1.0))
    assert share_shown(grid) == pytest.approx(slices / (slices + 2 * min(6, max(0, 10 - slices / 2))))
    longer, looked = seen[0]
    assert longer[:, 1, 2].tolist() == [0] * more + list(range(slices)) + [slices - 1] * more
    np.testing.assert_array_equal(looked, longer > 0)
    assert seen[1][1] is None
