"""For any shape, spacing, place and orientation: what is read and written lies where it lay (hypothesis)."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from preprocess.geometry import Box, Grid, reoriented, triple
from preprocess.io import read_labels, read_scan, write_image, write_labels
from preprocess.resample import resampled
from preprocess.volume import LabelMap, Volume

_SPACING = st.floats(0.3, 10).map(lambda v: round(v, 3))


@st.composite
def grids(draw):
    """Canonical within 20 degrees, then permuted and flipped in one of 48 ways."""
    shape = tuple(draw(st.tuples(*[st.integers(1, 9)] * 3)))
    angles = draw(st.tuples(*[st.floats(-20, 20)] * 3) | st.just((0.0, 0.0, 0.0)))
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[::-1]
    origin = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    grid = Grid(shape, draw(st.tuples(*[_SPACING] * 3)), origin, tuple(triple(axis) for axis in axes))
    order = draw(st.permutations(range(3)))
    return grid, grid.turned(order, draw(st.tuples(*[st.booleans()] * 3)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(grids=grids(), seed=st.integers(0, 2**32 - 1))
def test_a_scan_in_any_orientation_is_the_same_scan_and_its_mask_goes_back(grids, seed):
    canonical, stored = grids
    hu = np.random.default_rng(seed).integers(-1000, 1500, canonical.shape).astype(np.int16)
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name) / "a.nii.gz", Path(name) / "out.nii.gz"
        write_image(path, Volume(np.ascontiguousarray(reoriented(hu, canonical, stored)), stored))
        scan = read_scan(path)
        # Bit for bit, at the same places.
        np.testing.assert_array_equal(scan.volume.array, hu)
        assert scan.volume.grid.mismatch_mm(canonical) < 1e-3
        assert scan.native.mismatch_mm(stored) < 1e-3
        labels = LabelMap((hu % 3).astype(np.uint8), scan.volume.grid)
        write_labels(out, labels, scan)
        back = read_labels(out, like=scan.volume.grid)
        np.testing.assert_array_equal(back.array, labels.array)
        assert read_scan(path).header.fields["srow"].tobytes() == scan.header.fields["srow"].tobytes()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(grids=grids(), spacing=st.tuples(*[_SPACING] * 3), seed=st.integers(0, 2**32 - 1))
def test_resampling_does_not_depend_on_the_orientation_stored(grids, spacing, seed):
    canonical, stored = grids
    hu = np.random.default_rng(seed).integers(-1000, 1500, canonical.shape).astype(np.int16)
    again = reoriented(np.ascontiguousarray(reoriented(hu, canonical, stored)), stored, stored.canonical())
    one = resampled(hu, canonical, canonical.respaced(spacing))
    other = resampled(again, stored.canonical(), stored.canonical().respaced(spacing))
    np.testing.assert_array_equal(one, other)
    assert one.min() >= hu.min()
    assert one.max() <= hu.max()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(grids=grids(), data=st.data())
def test_a_box_is_the_same_voxels_in_both_orders(grids, data):
    canonical, stored = grids
    start = tuple(data.draw(st.integers(0, n - 1)) for n in canonical.shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, canonical.shape, strict=True))
    box = Box(start, stop)
    inside = np.zeros(canonical.shape, bool)
    inside[box.slices] = True
    turned = np.zeros(stored.shape, bool)
    turned[box.reoriented(canonical, stored).slices] = True
    np.testing.assert_array_equal(reoriented(inside, canonical, stored), turned)
