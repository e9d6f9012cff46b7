import os
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

import preprocess.nifti
from preprocess.errors import InputError, ResourceError
from preprocess.geometry import Grid
from preprocess.io import Scan, case_name, read_labels, read_scan, write_image, write_labels
from preprocess.nifti_header import NiftiHeader
from preprocess.volume import LabelMap, Volume

SHAPE = (3, 4, 5)
SPACING = (5.0, 0.8, 0.7)
HU = (np.arange(60).reshape(SHAPE) * 20 - 1000).astype(np.int16)
CLASSES = (np.arange(60).reshape(SHAPE) % 3).astype(np.uint8)
# Columns: where x, y and z of the file point (LPS). Plain, flipped, permuted (coronal), oblique, oblique and mirrored.
DIRECTIONS = {
    "plain": np.eye(3),
    "flipped": np.diag([-1.0, 1, -1]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": np.array([[0.8, -0.6, 0], [0.6 * 0.8, 0.8 * 0.8, -0.6], [0.36, 0.48, 0.8]]),
    "mirrored": np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1.0]]),
}


def put(path, array=HU, direction="oblique", origin=(-12.5, 34.25, 56.125)):
    """Writes an image through SimpleITK, in any of its formats."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(origin)
    image.SetDirection(DIRECTIONS[direction].ravel())
    SimpleITK.WriteImage(image, str(path))
    return path


def geometry(path):
    image = SimpleITK.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def itk_positions(path):
    """World position of the first and last voxel, and their values, as SimpleITK sees them."""
    image = SimpleITK.ReadImage(str(path))
    ends = ((0, 0, 0), (4, 3, 2))
    return [(image.TransformIndexToPhysicalPoint(index), image[index]) for index in ends]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_every_format_puts_each_voxel_where_simpleitk_does(tmp_path, suffix, direction):
    path = put(tmp_path / f"a{suffix}", direction=direction)
    scan = read_scan(path)
    for position, value in itk_positions(path):
        z, y, x = np.rint(scan.volume.grid.index_at(position)).astype(int)
        assert scan.volume.array[z, y, x] == value
        np.testing.assert_allclose(scan.volume.grid.position_mm((z, y, x)), position, atol=1e-4)
    assert scan.volume.grid == scan.native.canonical()
    assert scan.volume.array.dtype == np.int16
    assert scan.volume.array.flags.c_contiguous
    assert scan.native.shape == SHAPE
    assert scan.native.spacing_mm == pytest.approx(SPACING, abs=1e-6)
    assert scan.warnings == ()
    assert (scan.header is None) == (suffix in (".nrrd", ".mha"))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_written_labels_lie_where_the_scan_lies(tmp_path, suffix, direction):
    path, out = put(tmp_path / f"a{suffix}", direction=direction), tmp_path / "out.nii.gz"
    scan = read_scan(path)
    labels = LabelMap((scan.volume.array % 3).astype(np.uint8), scan.volume.grid)
    write_labels(out, labels, scan)
    assert [p.name for p in tmp_path.iterdir() if p not in (path, out)] == []
    for ours, theirs in zip(geometry(out), geometry(path), strict=True):
        # NRRD states float64 and NIfTI float32.
        np.testing.assert_allclose(ours, theirs, atol=0 if scan.header else 1e-5)
    image = SimpleITK.ReadImage(str(out))
    assert image.GetPixelID() == SimpleITK.sitkUInt8
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), HU % 3)
    back = read_labels(out, like=scan.volume.grid)
    np.testing.assert_array_equal(back.array, labels.array)
    assert back.grid == scan.volume.grid


def test_geometry_fields_are_copied_byte_by_byte(tmp_path):
    path, out = put(tmp_path / "a.nii"), tmp_path / "out.nii.gz"
    content = bytearray(path.read_bytes())
    # Values that nothing recomputes: a qform of its own, spare pixdims, a time unit, codes 2 and 4.
    content[76:108] = struct.pack("<8f", -1, 0.7, 0.8, 5, 1.5, 2.5, 3.5, 4.5)
    content[123] = 2 | 8
    content[252:256] = struct.pack("<2h", 2, 4)
    content[256:280] = struct.pack("<6f", 0.1, 0.2, 0.3, 1, 2, 3)
    path.write_bytes(content)
    scan = read_scan(path)
    write_labels(out, LabelMap(CLASSES, scan.native).reoriented(scan.volume.grid), scan)
    image, header = preprocess.nifti.read_nifti(out)
    np.testing.assert_array_equal(image.array, CLASSES)
    stored = header.fields.tobytes()
    for part in (slice(76, 108), slice(123, 124), slice(252, 328)):
        assert stored[part] == content[part]
    assert struct.unpack("<8h", stored[40:56]) == (3, 5, 4, 3, 1, 1, 1, 1)


def test_labels_on_another_grid_are_a_bug(tmp_path):
    scan = read_scan(put(tmp_path / "a.nii", direction="flipped"))
    with pytest.raises(ValueError, match="labels on"):
        write_labels(tmp_path / "out.nii.gz", LabelMap(CLASSES, scan.native), scan)


def test_a_mask_that_reads_back_differently_gets_no_name(tmp_path, monkeypatch):
    scan = read_scan(put(tmp_path / "a.nii"))
    labels = LabelMap(np.ones(scan.volume.grid.shape, np.uint8), scan.volume.grid)

    def write_zeros(path, array, header):
        preprocess.nifti.write_nifti(path, array * 0, header)

    monkeypatch.setattr("preprocess.io.write_nifti", write_zeros)
    with pytest.raises(ResourceError, match="differently"):
        write_labels(tmp_path / "out.nii.gz", labels, scan)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii"]


def test_a_scan_needs_no_file(tmp_path):
    grid = Grid(SHAPE, SPACING)
    scan = Scan(preprocess.io.Volume(HU, grid), grid)
    write_labels(tmp_path / "out.nii.gz", LabelMap(CLASSES, grid), scan)
    np.testing.assert_array_equal(read_labels(tmp_path / "out.nii.gz", like=grid).array, CLASSES)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u4", "i8", "f4", "f8"])
def test_labels_of_any_type_with_whole_values(tmp_path, dtype):
    labels = read_labels(put(tmp_path / "a.nii.gz", CLASSES.astype(dtype), "flipped"))
    np.testing.assert_array_equal(labels.array, CLASSES[::-1, :, ::-1])
    assert labels.array.dtype == np.uint8


@pytest.mark.parametrize(
    ("value", "match"),
    [(1.5, "0, 1, 1.5, 2;"), (255, "0, 1, 2, 255;"), (-1, "-1, 0, 1, 2;"), (np.nan, "0, 1, 2, nan;")],
)
def test_other_label_values_are_listed(tmp_path, value, match):
    array = CLASSES.astype(np.float32)
    array[1, 2, 3] = value
    with pytest.raises(InputError, match=match):
        read_labels(put(tmp_path / "a.nii", array))


def test_many_label_values_are_cut_short(tmp_path):
    with pytest.raises(InputError, match=r"values 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.;"):
        read_labels(put(tmp_path / "a.nii", np.arange(60, dtype=np.uint8).reshape(SHAPE)))


def test_a_label_must_lie_on_its_image(tmp_path):
    like = read_scan(put(tmp_path / "a.nii")).volume.grid
    near = put(tmp_path / "near.nii", CLASSES, origin=(-12.51, 34.25, 56.125))
    assert read_labels(near, like=like).grid == like
    far = put(tmp_path / "far.nii", CLASSES, origin=(-12.0, 34.25, 56.125))
    with pytest.raises(InputError, match=r"far\.nii: label lies 0\.5 mm off"):
        read_labels(far, like=like)
    short = put(tmp_path / "short.nii", CLASSES[:2])
    with pytest.raises(InputError, match=r"label of shape .* for an image of"):
        read_labels(short, like=like)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_nrrd_and_mha_that_are_no_scalar_volume(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    for image in (
        SimpleITK.Image((5, 4), SimpleITK.sitkInt16),
        SimpleITK.Image((5, 4, 3, 2), SimpleITK.sitkInt16),
        SimpleITK.Image((5, 4, 3), SimpleITK.sitkVectorUInt8, 3),
    ):
        SimpleITK.WriteImage(image, str(path))
        with pytest.raises(InputError, match="not a 3-D scalar CT volume"):
            read_scan(path)
    put(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match="damaged or truncated"):
        read_scan(path)
    path.write_bytes(b"hello")
    with pytest.raises(InputError, match="damaged or truncated"):
        read_scan(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_flipped_bit_in_compressed_voxels_is_noticed(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(HU), str(path), useCompression=True)
    np.testing.assert_array_equal(read_scan(path).volume.array, HU)
    content = bytearray(path.read_bytes())
    content[-20] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_scan(path)


def nrrd(path, *lines):
    head = ["NRRD0004", "type: short", "dimension: 3", "sizes: 5 4 3", "endian: little", "encoding: raw", *lines]
    path.write_bytes("\n".join(head).encode() + b"\n\n" + HU.tobytes())
    return path


def test_nrrd_without_orientation_is_assumed_with_a_word(tmp_path):
    scan = read_scan(nrrd(tmp_path / "a.nrrd", "spacings: 0.7 0.8 5"))
    assert scan.volume.grid == Grid(SHAPE, SPACING)
    assert "assumed" in scan.warnings[0]


def test_nrrd_with_bad_numbers_or_voxels_elsewhere(tmp_path):
    with pytest.raises(InputError, match="not finite"):
        read_scan(nrrd(tmp_path / "a.nrrd", "spacings: 0.7 nan 5"))
    with pytest.raises(InputError, match="in another file"):
        read_scan(nrrd(tmp_path / "a.nrrd", "data file: /etc/hostname"))
    mha = tmp_path / "a.mha"
    put(mha)
    mha.write_bytes(mha.read_bytes().replace(b"= LOCAL", b"= /etc/hostname"))
    with pytest.raises(InputError, match="in another file"):
        read_scan(mha)


def test_a_huge_nrrd_asks_for_no_memory(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", "spacings: 1 1 1")
    path.write_bytes(path.read_bytes().replace(b"sizes: 5 4 3", b"sizes: 30000 30000 30000"))
    with pytest.raises(InputError, match="truncated: at most"):
        read_scan(path)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.nii.gz", b"PK\x03\x04" + bytes(100), "is a ZIP archive"),
        ("a.zip", b"PK\x03\x04" + bytes(100), "cannot be unpacked"),
        ("a.nhdr", b"NRRD0004", "in another file"),
        ("a.mhd", b"ObjectType = Image", "in another file"),
        ("a.dcm", bytes(200), "holds no DICOM picture"),
        ("a", bytes(128) + b"DICM", "holds no DICOM picture"),
        ("a.img", bytes(200), r"header fields, a\.hdr.* missing"),
        ("a.hdr.gz", bytes(200), r"voxels, a\.img.* missing"),
        ("a.txt", b"hello", "not a NIfTI file"),
    ],
)
def test_files_that_are_no_scan(tmp_path, name, content, match):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=match):
        read_scan(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(InputError, match="no regular file"):
        read_scan(tmp_path / "a.nii")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    with pytest.raises(InputError, match=r"cannot be read \(Too many levels"):
        read_scan(tmp_path / "loop.nii")
    with pytest.raises(InputError, match="does not exist"):
        read_scan(tmp_path / "none")


@pytest.mark.parametrize("name", ["ü b's.nii", "-dash.nii", "two\nlines.nii.gz", "x" * 251 + ".nii"])
def test_unusual_names(tmp_path, name):
    path = tmp_path / name
    header = NiftiHeader.of(Grid(SHAPE, SPACING))
    preprocess.nifti.write_nifti(path, CLASSES, header)
    np.testing.assert_array_equal(read_labels(path).array, CLASSES)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("d/volume-1.nii.gz", "volume-1"),
        ("d/a.b.NII", "a.b"),
        ("a.nrrd", "a"),
        ("a.mha", "a"),
        ("a.zip", "a"),
        ("case.1", "case.1"),
        ("d/folder/", "folder"),
        (".nii", ".nii"),
    ],
)
def test_case_name(path, name):
    assert case_name(Path(path)) == name


def test_the_name_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert case_name(Path()) == tmp_path.name


def test_a_real_scan_and_its_mask(tmp_path):
    data = Path(__file__).parents[2].parent / "shared/data/small"
    if not data.is_dir():
        pytest.skip(f"no real scan at {data}")
    path, out = data / "volume-0.nii.gz", tmp_path / "out.nii.gz"
    scan = read_scan(path)
    labels = read_labels(data / "segmentation-0.nii.gz", like=scan.volume.grid)
    write_labels(out, labels, scan)
    assert geometry(out) == geometry(path)
    native = scan.volume.reoriented(scan.native).array
    np.testing.assert_array_equal(native, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))


def test_an_int16_volume_comes_back_with_its_values_and_grid(tmp_path):
    axes = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    grid = Grid((3, 4, 5), (5.0, 0.8, 0.7), (-10.0, 20.0, 30.0), axes)
    hu = np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5) * 30
    write_image(tmp_path / "v.nii.gz", Volume(hu, grid))
    scan = read_scan(tmp_path / "v.nii.gz")
    assert scan.native.mismatch_mm(grid) < 1e-5
    assert scan.volume.array.dtype == np.int16
    assert np.array_equal(scan.volume.array, hu[::-1])
    other = SimpleITK.ReadImage(str(tmp_path / "v.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(other), hu)
    assert other.GetOrigin() == pytest.approx((-10.0, 20.0, 30.0))
