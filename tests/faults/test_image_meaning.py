"""Rows 21-50 of the catalogue of faults: what a sound file may hold instead of a CT in HU. Each names its row.

Rows 51-57, about the liver in the scan, are in test_pipeline_rows.py.
"""

import gzip
import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from preprocess.errors import InputError
from preprocess.geometry import Grid, reoriented
from preprocess.io import read_labels, read_scan, write_labels
from preprocess.phantom import make_phantom
from preprocess.volume import LabelMap
from tests.made_nifti import HU, SHAPE, SPACING, SROW, nifti, nifti2

ROOT = Path(__file__).parents[2]


def put(tmp_path, content, name="a.nii"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def scan_of(tmp_path, array=HU, **changes):
    return read_scan(put(tmp_path, nifti(array, **changes)))


def refused(tmp_path, match, array=HU, **changes):
    with pytest.raises(InputError, match=match) as caught:
        scan_of(tmp_path, array, **changes)
    assert "\n" not in str(caught.value)


def native(scan):
    return scan.volume.reoriented(scan.native).array


@pytest.fixture(scope="module")
def ct():
    """An abdomen (z, y, x) in HU, canonical; int16."""
    return make_phantom(5, tumors=1, oriented=False).volume.array[::2, ::2, ::2]


def test_row_21_four_dimensions(tmp_path):
    refused(tmp_path, "4-D, 5x4x1x3", dim=(4, 5, 4, 1, 3, 1, 1, 1))
    np.testing.assert_array_equal(native(scan_of(tmp_path, dim=(6, 5, 4, 3, 1, 1, 1, 9))), HU)


def test_row_22_two_dimensions(tmp_path):
    refused(tmp_path, "2-D, 5x12", dim=(2, 5, 12, 1, 1, 1, 1, 1))


@pytest.mark.parametrize(("code", "kind"), [(128, "colour"), (2304, "colour"), (32, "complex"), (1792, "complex")])
def test_row_23_colour_and_complex(tmp_path, code, kind):
    refused(tmp_path, kind, datatype=code)


def test_row_23_vectors(tmp_path):
    # NIfTI keeps the values of a vector in the fifth dimension.
    refused(tmp_path, "5-D", dim=(5, 5, 4, 1, 1, 3, 1, 1))
    image = SimpleITK.GetImageFromArray(np.zeros((3, 4, 5, 3), np.float32), isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / "v.nrrd"))
    with pytest.raises(InputError, match="3 values a voxel"):
        read_scan(tmp_path / "v.nrrd")


@pytest.mark.parametrize("order", ["<", ">"])
def test_row_24_nifti_2(tmp_path, order):
    scan = read_scan(put(tmp_path, gzip.compress(nifti2(order))))
    np.testing.assert_array_equal(native(scan), HU)
    assert scan.native == Grid(SHAPE, SPACING, (-30.0, -20.0, 10.0))


def pair(tmp_path, compress, **changes):
    whole = bytearray(nifti(vox_offset=0, **changes))
    whole[344:348] = b"ni1\0"
    ending = ".gz" if compress is not bytes else ""
    halves = (
        put(tmp_path, compress(bytes(whole[:348])), f"a.hdr{ending}"),
        put(tmp_path, compress(bytes(whole[352:])), f"a.img{ending}"),
    )
    return halves


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_row_25_a_pair_is_read_from_either_half(tmp_path, compress):
    for half in pair(tmp_path, compress):
        scan = read_scan(half)
        np.testing.assert_array_equal(native(scan), HU)
        assert scan.native == Grid(SHAPE, SPACING, (-30.0, -20.0, 10.0))
        labels = LabelMap(np.ones(scan.volume.grid.shape, np.uint8), scan.volume.grid)
        write_labels(tmp_path / "out.nii.gz", labels, scan)
        assert read_scan(tmp_path / "out.nii.gz").native == scan.native


@pytest.mark.parametrize(
    ("lost", "match"), [(0, r"header fields, a\.hdr\[\.gz\], are missing"), (1, r"voxels, a\.img")]
)
def test_row_25_one_half_missing(tmp_path, lost, match):
    halves = pair(tmp_path, bytes)
    halves[lost].unlink()
    with pytest.raises(InputError, match=match):
        read_scan(halves[1 - lost])


def test_row_25_half_a_pair_that_is_cut_or_no_half(tmp_path):
    header, voxels = pair(tmp_path, gzip.compress)
    whole = voxels.read_bytes()
    for content in (
        whole[:-8],
        whole[:-1] + b"\xff",
        gzip.compress(HU.tobytes()[:-1]),
        gzip.compress(HU.tobytes() + b"x"),
    ):
        voxels.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.img\.gz.*(truncated|damaged|declares)"):
            read_scan(header)
    header.write_bytes(header.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"a\.hdr\.gz is truncated"):
        read_scan(header)
    header.write_bytes(nifti())
    with pytest.raises(InputError, match=r"of the other kind; name it \.nii"):
        read_scan(header)


def test_row_26_voxels_that_are_not_finite(tmp_path):
    array = HU.astype(np.float32)
    array[0, 1, 2], array[2, 3, 4], array[1, 0, 0] = np.nan, np.inf, -np.inf
    scan = scan_of(tmp_path, array)
    assert [native(scan)[at] for at in ((0, 1, 2), (2, 3, 4), (1, 0, 0))] == [-1024] * 3
    assert scan.warnings == ("3 voxels are not finite (NaN or infinite); filled with -1024 HU",)


@pytest.mark.parametrize("value", [-1024, 0, 60])
def test_row_27_all_constant(tmp_path, value):
    scan = scan_of(tmp_path, np.full(SHAPE, value, np.int16))
    assert scan.warnings == (f"every voxel is {value} HU; is this the right file?",)


def warning_of(tmp_path, array):
    (warning,) = scan_of(tmp_path, array).warnings
    return warning


def test_row_28_mr(tmp_path, ct):
    # Air is 0 in an MR, and nothing is at 1024 + tissue.
    body = ct > -500
    mr = np.where(body, 150 + (ct.clip(-200, 200) + 200) * 1.5, 4)
    assert "MR" in warning_of(tmp_path, mr.astype(np.int16))
    assert "MR" in warning_of(tmp_path, mr.astype(np.float32) + 0.25)


@pytest.mark.parametrize("values", [1, 2, 117])
def test_row_28_label_map(tmp_path, ct, values):
    body = ndimage.gaussian_filter(ct.astype(np.float32), 3) > -200
    organs = np.random.default_rng(0).integers(1, values + 1, [n // 8 + 1 for n in ct.shape])
    z, y, x = ct.shape
    labels = (np.kron(organs, np.ones((8, 8, 8), int))[:z, :y, :x] * body).astype(np.int16)
    refused(tmp_path, "is a label map", labels)
    refused(tmp_path, "is a label map", labels.astype(np.float32))
    # As a label it is what it should be.
    if values <= 2:
        assert read_labels(put(tmp_path, nifti(labels))).array.max() == values


def test_row_29_windowed_to_8_bit(tmp_path, ct):
    picture = np.rint((ct.clip(-160, 240) + 160) * (255 / 400))
    assert "8-bit picture" in warning_of(tmp_path, picture.astype(np.uint8))
    # Scaled back to HU, as some public scans are.
    clipped = np.rint(picture * (400 / 255) - 160).astype(np.int16)
    assert "clipped to a window" in warning_of(tmp_path, clipped)


@pytest.mark.parametrize("offset", [1024, 1000])
def test_row_30_rescale_missing(tmp_path, ct, offset):
    stored = (ct.clip(-offset, 3000) + offset).astype(np.uint16)
    assert "without its rescale" in warning_of(tmp_path, stored)


def test_row_31_rescale_applied_twice(tmp_path, ct):
    assert "rescale applied twice" in warning_of(tmp_path, (ct - 1024).astype(np.int16))


def test_row_31_scaled_far_beneath_any_ct(tmp_path, ct):
    assert "below air" in warning_of(tmp_path, (ct.astype(np.int32) * 10).clip(-32768, 32767).astype(np.int16))


@pytest.mark.parametrize("padding", [-2000, -2048, -3024, -32768])
def test_row_32_padding_is_air(tmp_path, ct, padding):
    padded = ct.copy()
    _, y, x = np.ogrid[tuple(map(slice, ct.shape))]
    outside = np.broadcast_to(np.hypot(y / ct.shape[1] - 0.5, x / ct.shape[2] - 0.5) > 0.5, ct.shape)
    padded[outside] = padding
    scan = scan_of(tmp_path, padded)
    assert scan.warnings == ()
    assert set(native(scan)[outside]) == {-1024}
    np.testing.assert_array_equal(native(scan)[~outside], ct[~outside])


@pytest.mark.parametrize(("dtype", "value"), [("i2", 30000), ("i4", 2_000_000_000), ("f4", 1e20)])
def test_row_33_metal_is_clamped(tmp_path, ct, dtype, value):
    metal = ct.astype(dtype)
    metal[5, 20:24, 30:34] = value
    scan = scan_of(tmp_path, metal)
    assert scan.warnings == ()
    assert native(scan).max() == 30000
    assert scan.volume.array.dtype == np.int16


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_row_34_a_slope_that_is_none(tmp_path, slope):
    np.testing.assert_array_equal(native(scan_of(tmp_path, scl_slope=slope, scl_inter=7.0)), HU)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_row_35_spacing_zero_or_not_finite(tmp_path, value):
    refused(tmp_path, "spacing", pixdim=(1, 0.7, value, 5, 0, 0, 0, 0))
    refused(tmp_path, "spacing", srow=(value, 0, 0, 30, 0, -0.8, 0, 20, 0, 0, 5, 10))


@pytest.mark.parametrize("code", [0, 1])
def test_row_36_negative_pixdim(tmp_path, code):
    scan = scan_of(tmp_path, sform_code=code, pixdim=(1, -0.7, 0.8, -5, 0, 0, 0, 0))
    assert scan.native == Grid(SHAPE, SPACING, (-30.0, -20.0, 10.0) if code else (0.0, 0.0, 0.0))
    assert len(scan.warnings) == 1 - code  # no orientation stated


@pytest.mark.parametrize("factor", [0.001, 100])
def test_row_37_spacing_of_no_body(tmp_path, factor):
    srow = tuple(np.array(SROW) * factor)
    refused(tmp_path, "is the unit of the header right", srow=srow, pixdim=(1, 0.7, 0.8, 5, 0, 0, 0, 0))


@pytest.mark.parametrize(("units", "factor"), [(1, 0.001), (3, 1000), (0, 1)])
def test_row_38_metre_and_micron(tmp_path, units, factor):
    srow, pixdim = np.array(SROW) * factor, np.array((1, 0.7, 0.8, 5, 0, 0, 0, 0)) * factor
    scan = scan_of(tmp_path, xyzt_units=units, srow=tuple(srow), pixdim=tuple(pixdim))
    assert scan.native.spacing_mm == pytest.approx(SPACING, rel=1e-6)
    assert scan.native.origin_mm == pytest.approx((-30.0, -20.0, 10.0), rel=1e-6)


def test_row_39_qform_and_sform_that_differ(tmp_path):
    scan = scan_of(tmp_path, qform_code=1, quatern=(0, 0, 1), qoffset=(30, 20, 12))
    assert scan.native.origin_mm == (-30.0, -20.0, 10.0)
    assert "qform and sform of the header disagree" in scan.warnings[0]
    labels = LabelMap(np.ones(scan.volume.grid.shape, np.uint8), scan.volume.grid)
    write_labels(tmp_path / "out.nii.gz", labels, scan)
    given, written = (tmp_path / "a.nii").read_bytes(), gzip.decompress((tmp_path / "out.nii.gz").read_bytes())
    for part in (slice(76, 108), slice(123, 124), slice(252, 328)):
        assert written[part] == given[part]


def test_row_40_sheared_affine(tmp_path):
    refused(tmp_path, "not perpendicular", srow=(0.7, 0.1, 0, 30, 0, 0.8, 0, 20, 0, 0, 5, 10))


def test_row_41_singular_affine(tmp_path):
    refused(tmp_path, "not perpendicular", srow=(0.7, 0.8, 0, 30, 0, 0, 0, 20, 0, 0, 5, 10))
    refused(tmp_path, "spacing is zero", srow=(0.7, 0, 0, 30, 0, 0, 0, 20, 0, 0, 5, 10))


def test_row_42_no_orientation_stated(tmp_path):
    scan = scan_of(tmp_path, sform_code=0)
    assert scan.native == Grid(SHAPE, SPACING)
    assert scan.warnings == ("orientation not stated in the header; assumed left, back, head (LPS)",)


def orientations():
    """All 48 ways to store one volume: the axes (z, y, x) permuted and flipped."""
    return list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


@pytest.mark.parametrize(("order", "flipped"), orientations())
def test_row_43_and_44_all_48_orientations(tmp_path, order, flipped):
    """Read to the same bits, and a mask of it goes back to the same places; whole runs: cascade/test_batch.py."""
    grid = Grid(SHAPE, SPACING, (-30.0, -20.0, 10.0))
    stored_grid = grid.turned(order, flipped)
    affine = np.column_stack([(np.array(stored_grid.axes) * np.array(stored_grid.spacing_mm)[:, None])[::-1].T])
    srow = np.column_stack([affine, stored_grid.origin_mm]) * [[-1], [-1], [1]]
    stored = np.ascontiguousarray(reoriented(HU, grid, stored_grid))
    scan = scan_of(tmp_path, stored, srow=tuple(srow.ravel()), pixdim=(1, *stored_grid.spacing_mm[::-1], 0, 0, 0, 0))
    np.testing.assert_array_equal(scan.volume.array, HU)
    assert scan.volume.grid.spacing_mm == SPACING
    assert scan.volume.grid.mismatch_mm(grid) < 1e-5
    assert scan.warnings == ()
    labels = LabelMap((HU % 3).astype(np.uint8), scan.volume.grid)
    write_labels(tmp_path / "out.nii.gz", labels, scan)
    written = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out.nii.gz")))
    np.testing.assert_array_equal(written, stored % 3)


def test_row_45_oblique_30_degrees(tmp_path):
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    srow = np.array([[-0.7, 0, 0, 30], [0, -0.8 * c, 5 * s, 20], [0, 0.8 * s, 5 * c, 10]])
    scan = scan_of(tmp_path, srow=tuple(srow.ravel()))
    np.testing.assert_array_equal(scan.volume.array, HU)
    assert scan.volume.grid.spacing_mm == pytest.approx(SPACING, abs=1e-6)
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii"))
    z, y, x = np.rint(scan.volume.grid.index_at(image.TransformIndexToPhysicalPoint((4, 3, 2)))).astype(int)
    assert scan.volume.array[z, y, x] == HU[2, 3, 4]


@pytest.mark.parametrize("shape", [(1, 4, 5), (4, 5, 7), (13, 17, 19), (2, 1, 3)])
def test_rows_46_47_50_small_and_odd_sizes(tmp_path, shape):
    array = (np.arange(np.prod(shape)).reshape(shape) * 7 % 1500 - 1000).astype(np.int16)
    scan = scan_of(tmp_path, array)
    np.testing.assert_array_equal(scan.volume.array, array)
    labels = LabelMap((array % 3).astype(np.uint8), scan.volume.grid)
    write_labels(tmp_path / "out.nii.gz", labels, scan)
    np.testing.assert_array_equal(read_labels(tmp_path / "out.nii.gz", like=scan.volume.grid).array, labels.array)


def test_row_48_1200_slices_cost_two_copies_of_the_scan(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.integers(-1000, 1000, (1200, 64, 64)).astype(np.int16)
    path = put(tmp_path, gzip.compress(nifti(array, scl_inter=-24.0), 1), "a.nii.gz")
    tracemalloc.start()
    scan = read_scan(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scan.volume.array.shape == (1200, 64, 64)
    assert peak < 2.3 * array.nbytes


@pytest.mark.parametrize("step", [5.0, 0.4])
def test_row_49_thick_and_thin_slices(tmp_path, step):
    srow = (-0.7, 0, 0, 30, 0, -0.8, 0, 20, 0, 0, step, 10)
    scan = scan_of(tmp_path, srow=srow, pixdim=(1, 0.7, 0.8, step, 0, 0, 0, 0))
    assert scan.volume.grid.spacing_mm == (step, 0.8, 0.7)
    assert scan.warnings == ()


CLIPPED = "are clipped to a window"
REAL = {f"lits/volume-{n}.nii.gz": CLIPPED for n in (0, 1, 2, 3, 4, 5, 13)}
REAL |= {"lits/volume-46.nii.gz": None, "small/volume-0.nii.gz": None, "chaos/3/DICOM_anon": None}


@pytest.mark.parametrize("name", REAL)
def test_rows_28_to_31_no_false_alarm_on_a_real_ct(name):
    path = ROOT.parent / "shared/data" / name
    if not path.exists():
        pytest.skip(f"no real scan at {path}")
    warnings = read_scan(path).warnings
    assert len(warnings) == (REAL[name] is not None)
    assert all(REAL[name] in warning for warning in warnings)


@pytest.mark.parametrize("seed", range(3))
def test_rows_28_to_31_no_false_alarm_on_a_synthetic_ct(tmp_path, seed):
    assert scan_of(tmp_path, make_phantom(seed, oriented=False).volume.array[::2, ::2, ::2]).warnings == ()
