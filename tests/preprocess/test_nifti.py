import gzip
import itertools

import numpy as np
import pytest
import SimpleITK

from preprocess.decoded import Decoded, hu_array
from preprocess.errors import InputError, ResourceError
from preprocess.geometry import Grid, reoriented
from preprocess.io import read_scan
from preprocess.nifti import read_nifti, verify_nifti, write_nifti
from preprocess.nifti_header import GEOMETRY_FIELDS, NiftiHeader
from tests.made_nifti import HU, SHAPE, SPACING, SROW, TYPES, nifti, nifti2


def put(tmp_path, content, name="a.nii"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refused(tmp_path, content, match, name="a.nii"):
    path = put(tmp_path, content, name)
    with pytest.raises(InputError, match=match) as caught:
        read_nifti(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_and_grid_of_a_plain_file(tmp_path):
    image, _ = read_nifti(put(tmp_path, nifti()))
    np.testing.assert_array_equal(image.array, HU)
    assert image.grid == Grid(SHAPE, SPACING, (-30.0, -20.0, 10.0))
    assert image.warnings == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_scalar_type_in_both_byte_orders(tmp_path, dtype, order):
    array = np.arange(60).reshape(SHAPE).astype(dtype)
    image, _ = read_nifti(put(tmp_path, nifti(array, order)))
    np.testing.assert_array_equal(image.array, array)
    assert image.grid.spacing_mm == SPACING
    values, _ = hu_array(image)
    assert values.dtype == np.int16
    np.testing.assert_array_equal(values, array)


SQUARE = np.arange(48, dtype=np.int16).reshape(3, 4, 4)


@pytest.mark.parametrize(
    ("dtype", "axes", "same_memory", "expected"),
    [
        ("<i2", ((0, 0, 1), (0, 1, 0), (1, 0, 0)), True, SQUARE),
        (">i2", ((0, 0, 1), (0, -1, 0), (1, 0, 0)), True, SQUARE[:, ::-1]),
        ("<u2", ((0, 0, 1), (1, 0, 0), (0, 1, 0)), True, SQUARE.transpose(0, 2, 1)),
        ("<i2", ((0, 0, -1), (0, 1, 0), (1, 0, 0)), False, SQUARE[::-1]),
        ("<i2", ((1, 0, 0), (0, 1, 0), (0, 0, 1)), False, SQUARE.transpose(2, 1, 0)),
        ("<i4", ((0, 0, 1), (0, 1, 0), (1, 0, 0)), False, SQUARE),
    ],
)
def test_hu_take_the_place_of_the_files_values_only_where_slice_lies_on_slice(
    tmp_path, dtype, axes, same_memory, expected
):
    grid = Grid(SQUARE.shape, (1.0, 1.0, 1.0), axes=axes)
    image = Decoded(tmp_path, SQUARE.astype(dtype), grid)
    values, _ = hu_array(image)
    np.testing.assert_array_equal(values, expected)
    assert (values.dtype, values.flags.c_contiguous) == (np.int16, True)
    assert np.shares_memory(values, image.array) == same_memory


def test_hu_leave_an_array_alone_that_may_not_be_written(tmp_path):
    stored = SQUARE - 1100
    stored.flags.writeable = False
    values, _ = hu_array(Decoded(tmp_path, stored, Grid(SQUARE.shape, (1.0, 1.0, 1.0))))
    assert (values.min(), stored.min()) == (-1024, -1100)


def test_whole_values_that_become_fractions_after_some_slices_are_all_there(tmp_path):
    stored = np.array([[[2, 4]], [[6, 7]]], np.int16)
    image = Decoded(tmp_path, stored, Grid((2, 1, 2), (1.0, 1.0, 1.0)), slope=0.5)
    np.testing.assert_array_equal(hu_array(image)[0], np.array([[[1, 2]], [[3, 3.5]]], np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti2_reads_and_writes_back(tmp_path, order):
    image, header = read_nifti(put(tmp_path, gzip.compress(nifti2(order))))
    np.testing.assert_array_equal(image.array, HU)
    assert image.grid == Grid(SHAPE, SPACING, (-30.0, -20.0, 10.0))
    path = tmp_path / "out.nii.gz"
    write_nifti(path, np.ones(SHAPE, np.uint8), header)
    verify_nifti(path, np.ones(SHAPE, np.uint8), header)


@pytest.mark.parametrize("length", [65535, 65536, 65537])
def test_a_member_may_end_anywhere_in_a_piece(tmp_path, length):
    first = gzip.compress(nifti()[:300], mtime=0)
    # A file name in the gzip header makes the member as long as wanted.
    first = first[:3] + b"\x08" + first[4:10] + b"n" * (length - len(first) - 1) + b"\0" + first[10:]
    assert len(first) == length
    image, _ = read_nifti(put(tmp_path, first + gzip.compress(nifti()[300:])))
    np.testing.assert_array_equal(image.array, HU)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"x" * 1000, "not a NIfTI"),
        (b"<html>", "not a NIfTI"),
        (gzip.compress(gzip.compress(nifti())), "compressed twice"),
        (b"\x1f\x8b\x08\x08" + b"n" * 10_000, "truncated"),
        (gzip.compress(b"hello"), "not a NIfTI"),
        (nifti()[:344] + b"ni1\0" + nifti()[348:], "name it as halves of a pair"),
        (nifti()[:344] + bytes(4) + nifti()[348:], "Analyze"),
        (nifti(tail=b"more"), "holds more than the 472 bytes"),
    ],
)
def test_no_nifti_and_damaged_files(tmp_path, content, match):
    refused(tmp_path, content, match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dim": (5, 5, 4, 1, 1, 3, 1, 1)}, "5-D, 5x4x1x1x3"),
        ({"dim": (4, 5, 4, 1, 3, 1, 1, 1)}, "4-D"),
        ({"dim": (2, 5, 12, 1, 1, 1, 1, 1)}, "2-D"),
        ({"dim": (0, 5, 4, 3, 1, 1, 1, 1)}, "dimensions"),
        ({"dim": (8, 5, 4, 3, 1, 1, 1, 1)}, "dimensions"),
        ({"dim": (3, 5, 0, 3, 1, 1, 1, 1)}, "dimensions"),
        ({"dim": (3, 5, -4, 3, 1, 1, 1, 1)}, "dimensions"),
        ({"datatype": 128}, "colour"),
        ({"datatype": 2304}, "colour"),
        ({"datatype": 32}, "complex"),
        ({"datatype": 1}, "1-bit"),
        ({"datatype": 1536}, "128-bit"),
        ({"datatype": 0}, "data type 0"),
        ({"datatype": -1}, "data type -1"),
        ({"vox_offset": float("nan")}, "vox_offset"),
        ({"vox_offset": -352.0}, "vox_offset"),
        ({"vox_offset": 100.0}, "vox_offset"),
        ({"vox_offset": 1e30}, "truncated"),
        ({"pixdim": (1, 0, 0.8, 5, 0, 0, 0, 0)}, "spacing"),
        ({"pixdim": (1, 0.7, float("nan"), 5, 0, 0, 0, 0)}, "spacing"),
        ({"srow": (0, 0, 0, 30, 0, -0.8, 0, 20, 0, 0, 5, 10)}, "spacing is zero"),
        ({"srow": (float("nan"), 0, 0, 30, 0, -0.8, 0, 20, 0, 0, 5, 10)}, "not finite"),
        ({"srow": (-0.7, 0, 0, float("inf"), 0, -0.8, 0, 20, 0, 0, 5, 10)}, "not finite"),
        ({"srow": (0.7, 0.1, 0, 30, 0, 0.8, 0, 20, 0, 0, 5, 10)}, "not perpendicular"),
        ({"srow": (0.7, 0.8, 0, 30, 0, 0, 0, 20, 0, 0, 5, 10)}, "not perpendicular"),
        ({"srow": (70.0, 0, 0, 30, 0, 80, 0, 20, 0, 0, 500, 10)}, "unit"),
        ({"xyzt_units": 3}, "unit"),
        ({"sform_code": 0, "qform_code": 1, "quatern": (1.0, 1.0, 0.0)}, "no rotation"),
    ],
)
def test_headers_that_are_refused(tmp_path, changes, match):
    refused(tmp_path, nifti(**changes), match)


def test_file_that_is_missing_or_may_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="does not exist"):
        read_nifti(tmp_path / "none.nii")
    path = put(tmp_path, nifti())

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", denied)
    with pytest.raises(ResourceError, match="permissions"):
        read_nifti(path)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -24, np.int16), (2, 3, np.int16), (0.5, 0.25, np.float32)]
)
def test_scaling(tmp_path, slope, intercept, dtype):
    stored = np.arange(60).reshape(SHAPE).astype(np.uint16)
    image, _ = read_nifti(put(tmp_path, nifti(stored, scl_slope=slope, scl_inter=intercept)))
    values, _ = hu_array(image)
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, stored * np.float64(slope) + intercept)


@pytest.mark.parametrize(
    ("array", "match"),
    [(HU * 0 + 7, "every voxel is 7"), (HU % 200, "8-bit"), (HU + 1000, "without its rescale"), (HU // 10, "span")],
)
def test_values_that_are_hardly_hu(tmp_path, array, match):
    _, (warning,) = hu_array(read_nifti(put(tmp_path, nifti(array.astype(np.int16))))[0])
    assert match in warning


def test_qform_alone_agrees_with_simpleitk(tmp_path):
    for mirror, quatern in itertools.product((1, -1), [(0, 0, 0), (0.1, 0.2, 0.3), (0, 0, 1), (0.6, 0, 0.8)]):
        content = nifti(
            sform_code=0, qform_code=1, quatern=quatern, qoffset=(1.5, -2, 3), pixdim=(mirror, 0.7, 0.8, 5, 0, 0, 0, 0)
        )
        path = put(tmp_path, content)
        image, _ = read_nifti(path)
        other = SimpleITK.ReadImage(str(path))
        np.testing.assert_allclose(image.grid.origin_mm, other.GetOrigin(), atol=1e-5)
        np.testing.assert_allclose(np.array(image.grid.axes)[::-1].T.ravel(), other.GetDirection(), atol=1e-5)
        np.testing.assert_allclose(image.grid.spacing_mm[::-1], other.GetSpacing(), atol=1e-6)


def test_sform_wins_over_a_qform_that_disagrees(tmp_path):
    same = {"qform_code": 1, "quatern": (0, 0, 1), "qoffset": (30, 20, 10)}
    assert read_nifti(put(tmp_path, nifti(**same)))[0].warnings == ()
    for change in ({"qoffset": (30, 20, 10.02)}, {"quatern": (0, 0.002, 1)}, {"quatern": (0, 5, 5)}):
        image, _ = read_nifti(put(tmp_path, nifti(**{**same, **change})))
        assert image.grid == Grid(SHAPE, SPACING, (-30.0, -20.0, 10.0))
        assert "sform" in image.warnings[0]


def test_sform_wins_over_pixdim(tmp_path):
    image, _ = read_nifti(put(tmp_path, nifti(pixdim=(1, 0.7, 0.8, 4, 0, 0, 0, 0))))
    assert image.grid.spacing_mm == SPACING
    assert "4 x 0.8 x 0.7 mm and the sform 5 x 0.8 x 0.7 mm" in image.warnings[0]


@pytest.mark.parametrize(("units", "factor"), [(0, 1), (1, 1000), (3, 0.001)])
def test_units_become_mm(tmp_path, units, factor):
    stored = {
        name: tuple(v / factor for v in values) for name, values in (("srow", SROW), ("pixdim", (1, 0.7, 0.8, 5)))
    }
    content = nifti(srow=stored["srow"], pixdim=(*stored["pixdim"], 0, 0, 0, 0), xyzt_units=units)
    grid = read_nifti(put(tmp_path, content))[0].grid
    assert grid.spacing_mm == SPACING
    np.testing.assert_allclose(grid.origin_mm, (-30, -20, 10), rtol=1e-6)


def test_slightly_skewed_axes_are_straightened(tmp_path):
    grid = read_nifti(put(tmp_path, nifti(srow=(-0.7, 0.0004, 0, 30, 0, -0.8, 0, 20, 0, 0, 5, 10))))[0].grid
    axes = np.array(grid.axes)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)


def all_orientations(grid):
    """The 48 grids that hold the voxels of `grid` in another axis order or direction."""
    for order, flips in itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)):
        corner = [0, 0, 0]
        for axis, flip in zip(order, flips, strict=True):
            corner[axis] = grid.shape[axis] - 1 if flip else 0
        yield Grid(
            tuple(grid.shape[a] for a in order),
            tuple(grid.spacing_mm[a] for a in order),
            grid.position_mm(corner),
            tuple(tuple((-1 if f else 1) * v for v in grid.axes[a]) for a, f in zip(order, flips, strict=True)),
        )


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_all_48_orientations_of_one_scan_are_one_scan(tmp_path, degrees, form):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    # A float32 quaternion near half a turn is no more exact than this.
    tolerance_mm = 1e-2 if form == "qform" and degrees else 1e-4
    scan = Grid(SHAPE, SPACING, (-123.4, 56.7, 89.1), ((0, -s, c), (0, c, s), (1, 0, 0)))
    seen = set()
    for native in all_orientations(scan):
        header = NiftiHeader.of(native)
        unused = {"sform": "qform_code", "qform": "sform_code"}[form]
        fields = np.array(header.fields)
        fields[unused] = 0
        array = np.ascontiguousarray(reoriented(HU, scan, native))
        fields["dim"], fields["datatype"], fields["vox_offset"] = (3, *native.shape[::-1], 1, 1, 1, 1), 4, 352
        fields["sizeof_hdr"], fields["magic"] = 348, b"n+1"
        found = read_scan(put(tmp_path, fields.tobytes() + bytes(4) + array.tobytes()))
        np.testing.assert_array_equal(found.volume.array, HU)
        assert found.volume.array.flags.c_contiguous
        assert found.volume.grid.spacing_mm == SPACING
        assert found.volume.grid.mismatch_mm(scan) < tolerance_mm
        assert found.native.mismatch_mm(native) < tolerance_mm
        if degrees == 0:
            assert found.volume.grid.axes == scan.axes
        seen.add(found.native.axes)
    assert len(seen) == 48


def test_written_bytes_depend_on_the_input_alone(tmp_path):
    header = NiftiHeader.of(Grid(SHAPE, SPACING))
    for name in ("a", "b"):
        write_nifti(tmp_path / name, np.ones(SHAPE, np.uint8), header)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_free_text_of_a_header_is_not_copied(tmp_path):
    content = bytearray(nifti())
    content[148:160] = b"PATIENT NAME"
    _, header = read_nifti(put(tmp_path, content))
    write_nifti(tmp_path / "out.nii.gz", np.ones(SHAPE, np.uint8), header)
    assert b"PATIENT" not in gzip.decompress((tmp_path / "out.nii.gz").read_bytes())


def test_verification_says_no(tmp_path):
    header, ones = NiftiHeader.of(Grid(SHAPE, SPACING)), np.ones(SHAPE, np.uint8)
    path = tmp_path / "out.nii.gz"
    write_nifti(path, ones, header)
    verify_nifti(path, ones, header)
    with pytest.raises(ResourceError, match="differently"):
        verify_nifti(path, ones * 2, header)
    for field in GEOMETRY_FIELDS:
        fields = np.array(header.fields)
        fields[field] += 1
        with pytest.raises(ResourceError, match="differently"):
            verify_nifti(path, ones, NiftiHeader(path, fields[()]))
    write_nifti(path, np.ones((SHAPE[0] + 1, *SHAPE[1:]), np.uint8), header)
    with pytest.raises(ResourceError, match="differently"):
        verify_nifti(path, ones, header)
    write_nifti(path, ones, header)
    for longer in (b"\1", b"\1" * 5000):  # after the last slice
        whole = gzip.decompress(path.read_bytes()) + longer
        (tmp_path / "longer.nii.gz").write_bytes(gzip.compress(whole))
        with pytest.raises(ResourceError, match="differently"):
            verify_nifti(tmp_path / "longer.nii.gz", ones, header)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ResourceError, match="read back"):
        verify_nifti(path, ones, header)
