import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from preprocess.dicom import read_series
from preprocess.errors import InputError
from preprocess.geometry import Grid
from preprocess.io import read_labels, read_scan
from tests.made_dicom import HU, SECRET, SHAPE, STORED, dicom, series


@pytest.fixture
def chaos():
    folder = Path(__file__).parents[2].parent / "shared/data/chaos/3/DICOM_anon"
    if not folder.is_dir():
        pytest.skip(f"no real series at {folder}")
    return folder


def refused(folder, match):
    with pytest.raises(InputError, match=match) as caught:
        read_series(folder)
    assert str(folder) in str(caught.value)
    for private in (SECRET, "1.2.3", "\n"):
        assert private not in str(caught.value)


def test_slices_are_placed_by_position_not_by_name(tmp_path):
    image = read_series(series(tmp_path / "ct"))
    np.testing.assert_array_equal(image.array, HU)
    assert image.array.dtype == np.int16
    assert image.grid == Grid(SHAPE, (5.0, 0.8, 0.7), (-30.0, -20.0, 10.0))
    assert image.warnings == ()


@pytest.mark.parametrize("orientation", ["0\\1\\0\\0\\0\\-1", "1\\0\\0\\0\\0\\-1", "0.8\\0.6\\0\\-0.6\\0.8\\0"])
def test_sagittal_coronal_and_oblique_stacks(tmp_path, orientation):
    row, column = np.array(orientation.split("\\"), float).reshape(2, 3)
    normal = np.cross(row, column)
    for i in range(4):
        dicom(tmp_path, f"{9 - i}", STORED[i], np.array((1, 2, 3)) + 5 * i * normal, orientation=orientation)
    image = read_series(tmp_path)
    np.testing.assert_array_equal(image.array, HU)
    np.testing.assert_allclose(image.grid.axes, [normal, column, row], atol=1e-12)
    np.testing.assert_allclose(image.grid.origin_mm, (1, 2, 3))
    assert image.grid.spacing_mm == (5.0, 0.8, 0.7)


def test_a_real_series_is_read_as_by_simpleitk(chaos):
    scan = read_scan(chaos)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(chaos))
    other = SimpleITK.ReadImage(names)
    np.testing.assert_array_equal(scan.volume.array, np.maximum(SimpleITK.GetArrayFromImage(other), -1024))
    assert scan.native.origin_mm == other.GetOrigin()
    np.testing.assert_allclose(scan.native.spacing_mm[::-1], other.GetSpacing(), atol=5e-7)
    assert np.ravel(np.array(scan.native.axes)[::-1].T).tolist() == list(other.GetDirection())
    assert scan.warnings == ()


@pytest.mark.parametrize(
    ("tags", "match"),
    [
        ({"modality": "MR"}, "no CT slices .modality MR"),
        ({"modality": "SEG"}, "no CT slices .modality SEG"),
        ({"kind": "ORIGINAL\\PRIMARY\\LOCALIZER"}, "no CT slices"),
        ({"heights": (10, 15)}, r"too few slices for a volume \(2; at least 3"),
        ({"heights": (10, 15, 25, 30)}, "5 to 10 mm apart"),
        ({"heights": (10, 15, 20, 28)}, r"gaps at 10\.0 to 18\.0 mm"),
        ({"heights": (10, 10, 10, 10)}, "share one position"),
        ({"heights": (10, 15, 15, 20)}, "share one position"),
        ({"orientation": "1\\0\\0\\0\\0.96\\-0.28"}, r"16\.3 degrees"),
        ({"orientation": "0\\0\\0\\0\\1\\0"}, "no direction"),
        ({"orientation": "1\\0\\0\\0.8\\0.6\\0"}, "not perpendicular"),
        ({"orientation": None}, "ImageOrientationPatient"),
        ({"slope": "0"}, "RescaleSlope is 0"),
    ],
)
def test_series_that_are_refused(tmp_path, tags, match):
    refused(series(tmp_path / "ct", **tags), match)


def test_positions_rounded_to_a_tenth_are_no_gap(tmp_path):
    grid = read_series(series(tmp_path / "ct", (0, 1.3, 2.5, 3.8))).grid
    assert grid.spacing_mm[0] == pytest.approx(3.8 / 3)


def test_a_slice_without_position(tmp_path):
    folder = series(tmp_path / "ct")
    path = next(folder.iterdir())
    content = path.read_bytes()
    at = content.index(b"-30.000000")
    path.write_bytes(content[:at] + b"1A " + content[at + 3 :])
    refused(folder, "ImagePositionPatient is missing or broken")


def test_no_rescale_is_said(tmp_path):
    image = read_series(series(tmp_path / "ct", slope=None, intercept=None))
    assert image.warnings == ("the series has no rescale: what its values are is guessed from them",)


def test_an_empty_folder(tmp_path):
    refused(tmp_path, "holds no DICOM image")


def test_a_series_of_classes_is_a_label_whatever_its_modality(tmp_path):
    labels = read_labels(
        series(tmp_path / "ct", array=(STORED // 20 % 3).astype(np.int16), modality="OT", intercept="0")
    )
    np.testing.assert_array_equal(labels.array, STORED // 20 % 3)


def zipped(path, folder, extra=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"study/series/{file.name}")
        for name, content in extra:
            archive.writestr(name, content)
    return path


def test_zip_of_a_series(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    folder = series(tmp_path / "ct")
    extra = [("__MACOSX/s/._a.dcm", b"junk"), ("../../evil.txt", b"x"), ("/evil.txt", b"x")]
    scan = read_scan(zipped(tmp_path / "a.zip", folder, extra))
    np.testing.assert_array_equal(scan.volume.array, HU)
    assert list(scratch.iterdir()) == []
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_bad_series_in_a_zip_names_the_zip_and_leaves_nothing(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = zipped(tmp_path / "a.zip", series(tmp_path / "ct", modality="MR"))
    with pytest.raises(InputError, match=f"{path} holds no CT"):
        read_scan(path)
    assert list(scratch.iterdir()) == []


def test_zip_bomb_damage_and_two_images(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", bytes(80 << 20))
    with pytest.raises(InputError, match="would unpack to 83886080 bytes"):
        read_scan(path)
    zipped(path, series(tmp_path / "ct"))
    content = bytearray(path.read_bytes())
    content[120] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be unpacked"):
        read_scan(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.nii", "b.nii.gz"):
            archive.writestr(name, gzip.compress(b"x"))
    with pytest.raises(InputError, match="holds 2 images"):
        read_scan(path)


def test_an_empty_slice_in_a_zip_is_missed_as_in_a_folder(tmp_path):
    folder = series(tmp_path / "ct")
    empty = sorted(folder.iterdir())[-1]
    empty.write_bytes(b"")
    with pytest.raises(InputError, match="is empty or no DICOM file"):
        read_scan(folder)
    with pytest.raises(InputError, match="is empty or no DICOM file"):
        read_scan(zipped(tmp_path / "a.zip", folder))


def test_other_files_in_a_zip_are_no_slices(tmp_path):
    path = zipped(tmp_path / "a.zip", series(tmp_path / "ct"), [("README.txt", b"x"), ("VERSION", b"1")])
    assert read_scan(path).warnings == read_scan(tmp_path / "ct").warnings


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_zip_of_another_compression_is_refused_too(tmp_path, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.dcm", np.random.default_rng(1).bytes(5000))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: the ZIP cannot be unpacked"):
        read_scan(path)


@pytest.mark.parametrize(("kind", "told"), [("HU", False), ("US", False), ("MGML", True)])
def test_values_that_the_header_says_are_no_hu_are_said(tmp_path, kind, told):
    warnings = read_series(series(tmp_path / "ct", type=kind)).warnings
    assert [text for text in warnings if "are MGML, not HU" in text] == list(warnings)
    assert bool(warnings) == told
