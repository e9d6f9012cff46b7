from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from preprocess.cases import DicomMasks, PngMasks
from preprocess.errors import InputError, ResourceError
from preprocess.folders import entries
from preprocess.masks import read_dicom_masks, read_png_masks

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHAPE = (3, 4, 5)
ORIGIN = (-10.0, -20.0, 100.0)


def write_slice(path, pixels, position, *, row=(1.0, 0.0, 0.0), column=(0.0, 1.0, 0.0), spacing=(0.5, 0.7)):
    """One DICOM slice; `spacing` is (x, y)."""
    image = SimpleITK.GetImageFromArray(pixels[np.newaxis].astype(np.int16))
    normal = np.cross(row, column)
    image.SetSpacing((*spacing, 1.0))
    image.SetDirection(np.stack([row, column, normal], axis=1).ravel().tolist())
    image.SetMetaData("0008|0060", "CT")
    image.SetOrigin(position)
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path))
    writer.Execute(image)


def write_series(folder, array, *, heights=(100.0, 102.0, 104.0), **more):
    """Slices named by their index, at the given heights."""
    folder.mkdir(parents=True)
    for i, (pixels, z) in enumerate(zip(array, heights, strict=True)):
        write_slice(folder / f"image_{i}", pixels, (*ORIGIN[:2], z), **more)
    return folder


def write_png(path, pixels):
    path.parent.mkdir(exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels), str(path))


def one(*index, value=255):
    array = np.zeros(SHAPE, np.uint8)
    array[index] = value
    return array


def test_dicom_masks_merge_by_position(tmp_path):
    # the files are in the order of falling height, so file 0 is the top slice
    down = (104.0, 102.0, 100.0)
    liver = write_series(tmp_path / "liver", one(0, slice(1, 3)), heights=down)
    small = write_series(tmp_path / "livertumor1", one(0, 1, 2, value=1), heights=down)
    outside = write_series(tmp_path / "livertumor2", one(2, 0, 4), heights=down)

    labels = read_dicom_masks(DicomMasks(liver, (small, outside)))

    expected = np.zeros(SHAPE, np.uint8)
    expected[2, 1:3] = 1
    expected[2, 1, 2] = 2
    expected[0, 0, 4] = 2
    np.testing.assert_array_equal(labels.array, expected)
    assert labels.grid.spacing_mm == (2.0, 0.7, 0.5)
    assert labels.grid.origin_mm == ORIGIN


def test_no_tumour_is_only_liver(tmp_path):
    labels = read_dicom_masks(DicomMasks(write_series(tmp_path / "liver", one(1, 2, 3))))
    assert labels.array.sum() == labels.array[1, 2, 3] == 1


def test_flipped_slices_come_back_canonical(tmp_path):
    # rows run to the right and columns to the front: index (1, 0, 0) is the far corner of the body
    turned = {"row": (-1.0, 0.0, 0.0), "column": (0.0, -1.0, 0.0)}
    labels = read_dicom_masks(DicomMasks(write_series(tmp_path / "liver", one(1, 0, 0), **turned)))
    assert labels.array.sum() == labels.array[1, 3, 4] == 1
    np.testing.assert_allclose(labels.grid.origin_mm, (-10 - 4 * 0.5, -20 - 3 * 0.7, 100))


def test_tumour_on_other_slices_is_refused(tmp_path):
    liver = write_series(tmp_path / "liver", one(0))
    tumor = write_series(tmp_path / "livertumor", one(0), heights=(102.0, 104.0, 106.0))
    with pytest.raises(InputError, match=r"livertumor is 2 mm off .*liver"):
        read_dicom_masks(DicomMasks(liver, (tumor,)))


def test_a_missing_slice_is_refused(tmp_path):
    liver = write_series(tmp_path / "liver", one(0), heights=(100.0, 102.0, 106.0))
    with pytest.raises(InputError, match="2 to 4 mm apart"):
        read_dicom_masks(DicomMasks(liver))


def test_sheared_slices_are_refused(tmp_path):
    folder = tmp_path / "liver"
    folder.mkdir()
    for i in range(3):
        write_slice(folder / str(i), one(0)[i], (0.0, 0.5 * i, 2.0 * i))
    with pytest.raises(InputError, match="no regular stack"):
        read_dicom_masks(DicomMasks(folder))


def test_slices_of_two_kinds_are_refused(tmp_path):
    folder = write_series(tmp_path / "liver", one(0))
    write_slice(folder / "image_3", np.zeros((4, 6)), (*ORIGIN[:2], 106.0))
    with pytest.raises(InputError, match=r"image_3 differs from .*image_0"):
        read_dicom_masks(DicomMasks(folder))


def test_slices_at_one_place_are_refused(tmp_path):
    folder = write_series(tmp_path / "liver", one(0), heights=(100.0,) * 3)
    with pytest.raises(InputError, match="no regular stack"):
        read_dicom_masks(DicomMasks(folder))


def test_a_slice_without_position_is_refused(tmp_path):
    folder = write_series(tmp_path / "liver", one(0))
    whole = (folder / "image_1").read_bytes()
    position = b"\x20\x00\x32\x00"  # the tag as it stands in the file; 0020,0033 is no tag that anyone reads
    assert whole.count(position) == 1
    (folder / "image_1").write_bytes(whole.replace(position, b"\x20\x00\x33\x00"))
    with pytest.raises(InputError, match="image_1 has no ImagePositionPatient"):
        read_dicom_masks(DicomMasks(folder))


def test_a_slice_with_a_broken_position_is_refused(tmp_path):
    folder = write_series(tmp_path / "liver", one(0))
    whole = (folder / "image_1").read_bytes()
    assert whole.count(rb"-10\-20\102") == 1
    (folder / "image_1").write_bytes(whole.replace(rb"-10\-20\102", rb"-10\-20102 "))
    with pytest.raises(InputError, match="image_1 has a broken ImagePositionPatient"):
        read_dicom_masks(DicomMasks(folder))


def test_a_file_that_is_no_dicom_is_refused(tmp_path):
    folder = write_series(tmp_path / "liver", one(0))
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes.txt cannot be read"):
        read_dicom_masks(DicomMasks(folder))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="0 DICOM slices"):
        read_dicom_masks(DicomMasks(tmp_path))


@pytest.fixture
def donor(tmp_path):
    """Three slices whose first file is the top one, and PNGs with one liver voxel in the first picture."""
    image = write_series(tmp_path / "DICOM_anon", np.zeros(SHAPE), heights=(104.0, 102.0, 100.0))
    for i, pixels in enumerate(one(0, 1, 3)):
        write_png(tmp_path / "Ground" / f"liver_GT_{i}.png", pixels)
    return PngMasks(tmp_path / "Ground"), image


def test_pngs_lie_where_their_slice_lies(donor):
    labels = read_png_masks(*donor)
    assert labels.array.sum() == labels.array[2, 1, 3] == 1
    assert labels.grid.origin_mm == ORIGIN
    assert labels.grid.spacing_mm == (2.0, 0.7, 0.5)


def test_hidden_files_and_other_files_are_no_pictures(donor):
    (donor[0].folder / "._liver_GT_0.png").write_bytes(b"x")
    (donor[0].folder / "readme.txt").write_bytes(b"x")
    assert read_png_masks(*donor).array.sum() == 1


def test_a_missing_png_is_refused(donor):
    (donor[0].folder / "liver_GT_1.png").unlink()
    with pytest.raises(InputError, match="2 PNGs for 3 slices"):
        read_png_masks(*donor)


def test_pngs_of_many_organs_are_refused(donor):
    write_png(donor[0].folder / "liver_GT_1.png", one(1, 0, 0, value=63)[1])
    with pytest.raises(InputError, match=r"values \[63, 255\]"):
        read_png_masks(*donor)


def test_a_png_of_another_size_is_refused(donor):
    write_png(donor[0].folder / "liver_GT_1.png", np.zeros((5, 4), np.uint8))
    with pytest.raises(InputError, match=r"liver_GT_1.png has shape \(5, 4\)"):
        read_png_masks(*donor)


def test_a_coloured_png_is_refused(donor):
    colour = SimpleITK.GetImageFromArray(np.zeros((4, 5, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(colour, str(donor[0].folder / "liver_GT_1.png"))
    with pytest.raises(InputError, match="one grey picture"):
        read_png_masks(*donor)


def test_a_damaged_png_is_refused(donor):
    (donor[0].folder / "liver_GT_1.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"liver_GT_1.png cannot be read"):
        read_png_masks(*donor)


def test_chaos_pngs_equal_the_published_volume_in_space():
    folder = DATA / "chaos" / "3"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/chaos/3")
    labels = read_png_masks(PngMasks(folder / "Ground"), folder / "DICOM_anon")
    published = SimpleITK.ReadImage(str(folder / "segmentation.nii.gz"))
    np.testing.assert_array_equal(labels.array, SimpleITK.GetArrayFromImage(published))
    np.testing.assert_allclose(labels.grid.origin_mm, published.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(labels.grid.spacing_mm, published.GetSpacing()[::-1], atol=1e-6)
    assert published.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert labels.grid.axes == ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def test_entries_are_in_natural_order_without_hidden_files(tmp_path):
    for name in ("image_10", "image_9", "._image_9", ".DS_Store"):
        (tmp_path / name).touch()
    assert [path.name for path in entries(tmp_path)] == ["image_9", "image_10"]
    assert entries(tmp_path / "absent") == entries(tmp_path / "image_9") == []


def test_a_folder_without_permission_is_a_resource_error(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)  # chmod does not stop root
    with pytest.raises(ResourceError, match="Permission denied"):
        entries(tmp_path)
