"""Rows 58-79 of the catalogue of faults: what a folder of DICOM files can be. Each names its row."""

import gzip
import locale
import logging
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

import preprocess.itk_child
from cascade.batch import Outputs
from cascade.case import run_case
from preprocess.dicom_files import _raw
from preprocess.errors import InputError
from preprocess.geometry import Grid
from preprocess.io import read_labels, read_scan
from preprocess.itk_child import ItkChild
from tests.cascade import fakes
from tests.made_dicom import HU, SECRET, SHAPE, STORED, dicom, element, series

ROOT = Path(__file__).parents[2]
SEG, RTDOSE, RTSTRUCT = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("66.4", "481.2", "481.3"))


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        read_scan(path)
    assert caught.value.exit_code == 3
    for private in (SECRET, "1.2.3", "\n"):
        assert private not in str(caught.value)


def read(folder, *warnings):
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.volume.array, HU)
    assert scan.native == Grid(SHAPE, (5.0, 0.8, 0.7), (-30.0, -20.0, 10.0))
    assert scan.warnings == warnings
    return scan


def slices_of(folder, change):
    """`folder` with every slice changed by pydicom."""
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path, enforce_file_format=True)
    return folder


@pytest.mark.parametrize("heights", [(10, 15, 25, 30), (10, 20, 25, 30), (10, 15, 20, 30)])
def test_row_58_missing_slice(tmp_path, heights):
    refused(series(tmp_path / "ct", heights), r"gaps at \d+\.0 to \d+\.0 mm above the lowest; restore the missing")


@pytest.mark.parametrize("step", [2, 0.8, 3.27])
@pytest.mark.parametrize("missing", [(3, 5), (3, 5, 7), (3, 5, 6), (2, 7), (3, 4, 6, 7, 8)])
def test_row_58_missing_slices_do_not_hide_each_other(tmp_path, missing, step):
    heights = [round(step * k, 2) for k in range(10 + len(missing)) if k not in missing]
    refused(series(tmp_path / "ct", heights, array=np.stack([STORED[0]] * len(heights))), "restore the missing slices")


def test_row_59_the_same_slice_twice(tmp_path):
    folder = series(tmp_path / "ct")
    dicom(folder, "again.dcm", STORED[2], (-30, -20, 20.004))
    read(folder, "1 repeated slices dropped")


def test_row_59_two_slices_at_one_position(tmp_path):
    folder = series(tmp_path / "ct")
    dicom(folder, "phase.dcm", STORED[2] + np.int16(1), (-30, -20, 20))
    refused(folder, "several different slices share one position")


def test_row_60_all_at_one_position(tmp_path):
    refused(series(tmp_path / "a", (5, 5, 5, 5)), "share one position")
    refused(series(tmp_path / "b", (5, 5, 5, 5), array=np.stack([STORED[0]] * 4)), "1 different slices")


def test_row_61_uneven_slices_are_interpolated_with_a_word(tmp_path):
    # A ramp of 8 HU for a mm: linear interpolation is exact, so every voxel must lie where its height says.
    heights = np.array([0.0, 5.0, 10.0, 12.5, 15.0, 17.5])
    ramp = np.rint(8 * heights[:, None, None] + 100 * np.arange(15).reshape(3, 5)).astype(np.int16)
    folder = series(tmp_path / "ct", heights, array=ramp, intercept="-1000")
    scan = read_scan(folder)
    step = 17.5 / 7
    assert scan.native.spacing_mm == (step, 0.8, 0.7)
    expected = 8 * step * np.arange(8)[:, None, None] + 100 * np.arange(15).reshape(3, 5) - 1000
    np.testing.assert_array_equal(scan.volume.array, expected)
    assert scan.warnings == (
        "slices are 2.5 to 5 mm apart; interpolated to 8 slices every 2.5 mm, where the mask lies too",
    )


def test_row_61_of_uneven_slices_of_classes_the_nearest_is_taken(tmp_path):
    heights = np.array([0.0, 5.0, 10.0, 12.5, 15.0, 17.5])
    classes = np.array([0, 2, 0, 2, 0, 2], np.int16)[:, None, None] * np.ones((3, 5), np.int16)
    labels = read_labels(series(tmp_path / "ct", heights, array=classes, intercept="0", modality="OT"))
    assert labels.array[:, 0, 0].tolist() == [0, 0, 2, 2, 0, 2, 0, 2]


def test_row_61_slices_too_far_apart_to_interpolate(tmp_path):
    refused(series(tmp_path / "ct", (0, 5, 17, 30)), "gaps at 5.0 to 17.0, 17.0 to 30.0 mm")


@pytest.mark.parametrize("heights", [(10, 15, 20, 25)])
def test_row_62_gantry_tilt(tmp_path, heights):
    # Positions along z, slices that lean: no tag needed.
    refused(series(tmp_path / "ct", heights, orientation="1\\0\\0\\0\\0.96\\-0.28"), r"16\.3 degrees \(gantry tilt\)")


def test_row_62_a_tilt_that_only_the_tag_states(tmp_path):
    warning = "the header states a gantry tilt of 16.3 degrees, its positions show none; taken as straight"
    read(series(tmp_path / "ct", tilt="-16.3"), warning)
    read(series(tmp_path / "odd", tilt="1A"))


def test_row_63_several_series_are_listed(tmp_path):
    folder = series(tmp_path / "ct")
    series(folder, (1, 2, 3), "b", series="1.2.4")
    refused(folder, r"several series \(4 slices; 3 slices\); put the one to use")


def test_row_63_a_short_or_foreign_series_is_skipped_with_a_word(tmp_path):
    folder = series(tmp_path / "ct")
    series(folder, (0, 1), "short", series="1.2.4")
    series(folder, prefix="mr", modality="MR", series="1.2.5")
    read(folder, "6 DICOM files skipped (localizers, other series or objects)")


def test_row_64_mixed_size(tmp_path):
    folder = series(tmp_path / "ct")
    dicom(folder, "wide.dcm", np.zeros((3, 6), np.int16), (-30, -20, 30))
    refused(folder, "several sizes")


@pytest.mark.parametrize("tags", [{"orientation": "0\\1\\0\\-1\\0\\0"}, {"spacing": "0.8\\0.8"}])
def test_row_64_mixed_orientation_or_pixel_size(tmp_path, tags):
    folder = series(tmp_path / "ct")
    dicom(folder, "turned.dcm", STORED[0], (-30, -20, 30), **tags)
    refused(folder, "slices differ in (ImageOrientationPatient|PixelSpacing)")


def test_row_65_localizer_dose_report_and_screen_save(tmp_path):
    folder = series(tmp_path / "ct")
    dicom(folder, "scout.dcm", STORED[0], (0, 0, 0), kind="ORIGINAL\\PRIMARY\\LOCALIZER")
    dicom(folder, "save.dcm", np.zeros((3, 5, 3), np.uint8), (0, 0, 0), slope=None, intercept=None)
    report = {"rows": None, "columns": None, "pixels": None, "sop": "1.2.840.10008.5.1.4.1.1.88.67", "modality": "SR"}
    dicom(folder, "dose.dcm", STORED[0], (0, 0, 0), **report)
    read(
        folder,
        "1 DICOM files without an image skipped",
        "2 DICOM files skipped (localizers, other series or objects)",
    )


def test_row_66_multi_frame(tmp_path):
    path = dicom(tmp_path, "a.dcm", STORED, (-30, -20, 10))
    refused(path, "multi-frame DICOM object; export the CT with one file a slice")
    refused(series(tmp_path / "ct", array=np.zeros((4, 2, 3, 5), np.int16)), "multi-frame")


def itk_series(folder, compressor):
    """Slices of noise written by SimpleITK, compressed without loss."""
    hu = np.random.default_rng(0).integers(-1000, 1500, (3, 40, 50)).astype(np.int16)
    # GDCM's JPEG sets the locale of the whole process to C and leaves it there: another reason for a child process.
    before = locale.setlocale(locale.LC_ALL)
    folder.mkdir()
    for z in range(3):
        image = SimpleITK.GetImageFromArray(hu[z : z + 1])
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3", "0020|0032": f"0\\0\\{5 * z}", "0028|1052": "-1024"}
        for key, value in (tags | {"0020|0037": "1\\0\\0\\0\\1\\0", "0028|1053": "1"}).items():
            image.SetMetaData(key, value)
        writer = SimpleITK.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetCompressor(compressor)
        writer.UseCompressionOn()
        writer.SetFileName(str(folder / f"{z}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)
    return hu


@pytest.mark.parametrize(("compressor", "syntax"), [("JPEG2000", "4.90"), ("JPEG", "4.70")])
def test_row_67_jpeg_without_loss(tmp_path, compressor, syntax):
    hu = itk_series(tmp_path / "ct", compressor)
    assert pydicom.dcmread(tmp_path / "ct/0.dcm").file_meta.TransferSyntaxUID.endswith(syntax)
    np.testing.assert_array_equal(read_scan(tmp_path / "ct").volume.array, hu)


def test_row_67_rle(tmp_path):
    folder = slices_of(series(tmp_path / "ct"), lambda data: data.compress(pydicom.uid.RLELossless))
    read(folder)


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.100", "1.2"]
)
def test_row_68_other_syntaxes_are_named(tmp_path, syntax):
    def change(data):
        data.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)

    folder = series(tmp_path / "ct")
    for path in folder.iterdir():
        content = path.read_bytes()
        at = content.index(element((2, 0x10), "UI", "1.2.840.10008.1.2.1"))
        new = element((2, 0x10), "UI", syntax)
        old = element((2, 0x10), "UI", "1.2.840.10008.1.2.1")
        length = int.from_bytes(content[140:144], "little") + len(new) - len(old)
        path.write_bytes(
            content[:140] + length.to_bytes(4, "little") + content[144:at] + new + content[at + len(old) :]
        )
    refused(folder, f"transfer syntax {syntax} is not supported")


def test_row_69_implicit_big_endian_and_deflated(tmp_path):
    explicit = series(tmp_path / "explicit")
    for name, syntax in {
        "implicit": pydicom.uid.ImplicitVRLittleEndian,
        "big": pydicom.uid.ExplicitVRBigEndian,
        "deflated": pydicom.uid.DeflatedExplicitVRLittleEndian,
    }.items():
        (tmp_path / name).mkdir()
        for path in explicit.iterdir():
            data = pydicom.dcmread(path)
            if name == "big":
                data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()
            data.file_meta.TransferSyntaxUID = syntax
            little = name != "big"
            fresh = pydicom.dataset.Dataset(data)
            fresh.file_meta, fresh.preamble = data.file_meta, bytes(128)
            pydicom.dcmwrite(
                tmp_path / name / path.name,
                fresh,
                implicit_vr=name == "implicit",
                little_endian=little,
                force_encoding=True,
            )
        read(tmp_path / name)


def test_row_69_no_preamble(tmp_path):
    folder = series(tmp_path / "ct")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    read(folder)


@pytest.mark.parametrize("group_length", ["true", "a lie"])
def test_row_69_a_deflated_bomb_is_not_inflated(tmp_path, group_length):
    folder = series(tmp_path / "ct")
    path = next(folder.iterdir())
    content = path.read_bytes()
    plain, deflated = (element((2, 0x10), "UI", uid) for uid in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"))
    meta_end = 144 + int.from_bytes(content[140:144], "little")
    meta = content[144:meta_end].replace(plain, deflated)
    engine = zlib.compressobj(9, wbits=-15)
    body = engine.compress(content[meta_end:]) + b"".join(engine.compress(bytes(1 << 20)) for _ in range(80))
    length = len(meta) if group_length == "true" else 20
    path.write_bytes(content[:140] + length.to_bytes(4, "little") + meta + body + engine.flush())
    refused(folder, "damaged or truncated DICOM file")


def test_row_70_colour(tmp_path):
    colour = np.zeros((4, 3, 5, 3), np.uint8)
    refused(series(tmp_path / "ct", array=colour, slope=None, intercept=None), "colour pictures, not CT in HU")


@pytest.mark.parametrize("pixels", [b"", STORED[0].tobytes()[:-2], None])
def test_row_71_pixels_of_no_length_or_cut(tmp_path, pixels):
    folder = series(tmp_path / "ct")
    dicom(folder, "short.dcm", STORED[0], (-30, -20, 30), pixels=pixels)
    refused(folder, "pixels are truncated or damaged")


@pytest.mark.parametrize("left", [200, 500, 600, -10, -1])
def test_row_71_a_cut_file_does_not_pass_as_a_slice_that_never_was(tmp_path, left):
    folder = series(tmp_path / "ct")
    last = next(path for path in folder.iterdir() if b"25.000000" in path.read_bytes())
    last.write_bytes(last.read_bytes()[:left])
    refused(folder, "truncated|missing")


def test_row_72_slope_differs_between_slices(tmp_path):
    for i, slope in enumerate(("1", "0.5", "2")):
        dicom(tmp_path, str(i), np.array([[2, 4], [6, 9]], np.int16), (0, 0, i), slope=slope)
    array = read_scan(tmp_path).volume.array
    np.testing.assert_array_equal(array[:, 1], [[-1018, -1015], [-1021, -1019.5], [-1012, -1006]])


def test_row_72_32_bit_values_do_not_wrap(tmp_path):
    stored = np.array([[0, 1], [2**31 - 1, 2**32 - 1]], np.uint32)
    for i in range(3):
        dicom(tmp_path, str(i), stored, (0, 0, i), slope="2", intercept="-1")
    np.testing.assert_array_equal(read_scan(tmp_path).volume.array[0], [[-1, 1], [30000, 30000]])


@pytest.mark.parametrize("tags", [{"slope": ""}, {"kind": ""}, {"frames": ""}, {"frames": None}, {"uid": "1.2\x80"}])
def test_row_73_empty_or_odd_values_of_what_is_not_needed(tmp_path, tags):
    read(series(tmp_path / "ct", **tags))


@pytest.mark.parametrize(
    ("tags", "match"),
    [
        ({"slope": "1A"}, "RescaleSlope is missing or broken"),
        ({"slope": "0"}, "RescaleSlope is 0"),
        ({"intercept": "nan"}, "RescaleIntercept is missing or broken"),
        ({"spacing": ""}, "PixelSpacing is missing or broken"),
        ({"orientation": "1\\0\\0\\0\\1"}, "ImageOrientationPatient is missing or broken"),
    ],
)
def test_row_73_broken_values_of_what_is_needed(tmp_path, tags, match):
    refused(series(tmp_path / "ct", **tags), match)


def test_row_73_an_empty_value_of_an_unknown_type_is_not_converted():
    """Found by `make fuzz`: pydicom raises NotImplementedError where it converts."""
    data = pydicom.Dataset()
    tag = pydicom.tag.Tag("SamplesPerPixel")
    data[tag] = pydicom.dataelem.RawDataElement(tag, "U\x80", 0, None, 0, False, True)
    assert _raw(data, "SamplesPerPixel") == b""


def test_row_73_values_without_a_type(tmp_path):
    folder = series(tmp_path / "ct")
    for path in folder.iterdir():
        content = path.read_bytes()
        for tag, kind, value in (((0x28, 0x1053), "DS", "1"), ((0x28, 0x10), "US", b"\3\0")):
            known = element(tag, kind, value)
            assert known in content
            length = (len(known) - 8).to_bytes(4, "little")
            content = content.replace(known, known[:4] + b"UN\0\0" + length + known[8:])
        path.write_bytes(content)
    read(folder)


def test_row_74_empty_uids(tmp_path):
    read(series(tmp_path / "ct", series="", study="", uid=""))


def test_row_75_dicomdir(tmp_path):
    folder = series(tmp_path / "ct")
    # A record that points outside of the folder is never followed: only what lies in the folder is read.
    secret = dicom(tmp_path / "other", "secret.dcm", STORED[0], (-30, -20, 30))
    record = element((0x0004, 0x1500), "CS", "..\\OTHER\\SECRET.DCM")
    meta = element((2, 1), "OB", b"\0\1") + element((2, 2), "UI", "1.2.840.10008.1.3.10")
    meta += element((2, 0x10), "UI", "1.2.840.10008.1.2.1")
    head = bytes(128) + b"DICM" + element((2, 0), "UL", len(meta).to_bytes(4, "little"))
    (folder / "DICOMDIR").write_bytes(head + meta + record)
    read(folder, "1 DICOM files without an image skipped")
    refused(folder / "DICOMDIR", "a DICOMDIR only lists files")
    assert secret.exists()


def test_row_76_uids_are_no_names(tmp_path):
    (tmp_path / "in").mkdir()
    folder = series(tmp_path / "in/ct", uid="../../evil", series="../../evil", study="/evil")
    before = sorted(tmp_path.rglob("*"))
    read(folder)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("sop", "modality"), [(SEG, "SEG"), (RTDOSE, "RTDOSE"), (RTSTRUCT, "RTSTRUCT")])
def test_row_77_objects_that_are_no_image(tmp_path, sop, modality):
    folder = series(tmp_path / "ct", sop=sop, modality=modality)
    refused(folder, f"no CT slices .modality {modality}")
    refused(next(folder.iterdir()), f"no CT slice .modality {modality}")
    bare = {"rows": None, "columns": None, "pixels": None}
    refused(series(tmp_path / "bare", sop=sop, modality=modality, **bare), "holds no DICOM image")


def test_row_78_other_files_beside_the_slices(tmp_path):
    folder = series(tmp_path / "ct")
    (folder / "notes.txt").write_text("hello")
    (folder / "Thumbs.db").write_bytes(bytes(600))
    (folder / "._s03.dcm").write_bytes(b"junk")
    (folder / "empty").touch()
    (folder / "more").mkdir()
    read(folder)


def test_row_71_an_empty_or_overwritten_last_slice_is_not_one_that_never_was(tmp_path):
    for name, content in (("empty", b""), ("zeros", bytes(600)), ("cut", bytes(100))):
        folder = series(tmp_path / name, (10, 15, 20, 25))
        (folder / "last.DCM").write_bytes(content)
        refused(folder, "last.DCM is empty or no DICOM file")


def test_row_71_without_endings_a_file_that_is_no_slice_is_worth_a_word(tmp_path):
    folder = series(tmp_path / "ct")
    for path in list(folder.iterdir()):
        path.rename(path.with_suffix(""))
    (folder / "s99").touch()
    (folder / "notes.txt").touch()
    read(folder, "1 files named like the slices are no DICOM and were ignored; is a slice empty or damaged?")


def test_row_79_no_name_or_uid_of_a_patient_leaves_the_file(tmp_path, caplog, capfd):
    """In errors: `refused` of every row above. Here: what a run leaves and logs."""
    folder = series(tmp_path / "ct")
    with caplog.at_level(logging.DEBUG):
        line = run_case(folder, fakes.fake_runner(), Outputs(tmp_path / "out", keep_stages=True))
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    mask = gzip.decompress((tmp_path / "out/ct/segmentation.nii.gz").read_bytes())
    for private in (SECRET, "1.2.3"):
        assert private.encode() not in written + mask
        assert private not in line + caplog.text + "".join(capfd.readouterr())


def test_a_single_slice_is_a_volume_of_one(tmp_path):
    path = dicom(tmp_path, "a.dcm", STORED[0], (-30, -20, 10))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.volume.array, HU[:1])
    assert scan.native == Grid((1, 3, 5), (1.0, 0.8, 0.7), (-30.0, -20.0, 10.0))
    assert "1 mm assumed" in scan.warnings[0]
    slices_of(tmp_path, lambda data: setattr(data, "SliceThickness", "2.5"))
    assert read_scan(path).native.spacing_mm == (2.5, 0.8, 0.7)


def test_other_bits_of_a_word_are_not_hu(tmp_path):
    """12 bits of 16, signed, and an overlay or noise in the rest; as SimpleITK reads it."""
    stored = np.array([[-1024, -1, 0], [5, 2047, -2048]], np.int16)
    mixed = (stored & 0x0FFF) | np.int16(0x5000)
    bits = {"bits": b"\x0c\0", "high": b"\x0b\0", "intercept": "0"}
    for i in range(3):
        dicom(tmp_path, f"{i}.dcm", mixed, (0, 0, i), **bits)
    array = read_scan(tmp_path).volume.array
    np.testing.assert_array_equal(array[0], stored.clip(-1024))
    other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "0.dcm")))[0]
    np.testing.assert_array_equal(array[0], other.clip(-1024))


def jpeg_slice(tmp_path):
    itk_series(tmp_path / "ct", "JPEG2000")
    return tmp_path / "ct/0.dcm"


@pytest.mark.parametrize(
    ("script", "match"),
    [
        ("import os; os.abort()", "crashes its reader"),
        ("import time; time.sleep(60)", "takes longer than 0.5 s to read"),
        ("import sys; sys.stdout.buffer.write(b'\\xff' * 8)", "is damaged"),
        ("import sys; sys.stdout.buffer.write(b'\\2' + bytes(7) + b'{}')", "is damaged"),
    ],
)
def test_a_reader_that_dies_hangs_or_lies_is_one_line(tmp_path, monkeypatch, script, match):
    monkeypatch.setattr(preprocess.itk_child, "_COMMAND", (sys.executable, "-c", script))
    seconds = 0.5 if "sleep" in script else 30
    with ItkChild(seconds) as child, pytest.raises(InputError, match=match):
        child.read(tmp_path / "a.dcm", "GDCMImageIO", 2000)


def test_a_broken_jpeg_slice_is_one_line_and_the_next_is_read(tmp_path):
    path = jpeg_slice(tmp_path)
    content = bytearray(path.read_bytes())
    content[400:] = bytes(len(content) - 400)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(content)
    with ItkChild() as child:
        with pytest.raises(InputError, match=r"broken\.dcm"):
            child.read(broken, "GDCMImageIO", 2000)
        assert child.read(path, "GDCMImageIO", 2000).array.shape == (1, 40, 50)
        assert child.read(path, "GDCMImageIO", 1999).array is None


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_no_hanging_reader_outlives_a_killed_parent():
    """An idle reader ends with its standard input; this one never looks at it."""
    hanging = "import time; from preprocess.itk_child import _limit; _limit(); print(1, flush=True); time.sleep(60)"
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdin=-1, stdout=-1)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, hanging], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the reader still runs")
