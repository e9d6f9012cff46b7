"""Rows 1-20 of the catalogue of faults: what the bytes of an image file can be. Each names its row."""

import contextlib
import gzip
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from preprocess.errors import InputError
from preprocess.io import read_scan
from tests.made_nifti import HU, nifti

NOISE = np.random.default_rng(0).integers(-999, 999, (9, 90, 90)).astype(np.int16)


def put(tmp_path, content, name="a.nii.gz"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refused(tmp_path, content, match, name="a.nii.gz"):
    path = put(tmp_path, content, name)
    with pytest.raises(InputError, match=match) as caught:
        read_scan(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def native(path):
    scan = read_scan(path)
    return scan.volume.reoriented(scan.native).array


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9, 0.999])
def test_row_01_truncated_gzip(tmp_path, share):
    whole = gzip.compress(nifti(NOISE))
    refused(tmp_path, whole[: int(len(whole) * share)], r"truncated: \d+ of 146152 bytes")


@pytest.mark.parametrize("left", [0, 4, 347, 351, 352, 471])
def test_row_02_truncated_plain(tmp_path, left):
    refused(tmp_path, nifti()[:left], r"truncated: \d+ of (472|348) bytes" if left else "is empty", "a.nii")


def changed(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if at + 1 else content[:-1] + b"\xff"


def test_row_03_crc_wrong(tmp_path):
    refused(tmp_path, changed(gzip.compress(nifti()), -8), "(incorrect data check|Incorrect checksum)")


def test_row_04_isize_wrong(tmp_path):
    refused(tmp_path, changed(gzip.compress(nifti()), -4), "(incorrect length check|Incorrect checksum)")


@pytest.mark.parametrize("array", [HU, NOISE])
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_row_05_missing_trailer(tmp_path, array, cut):
    refused(tmp_path, gzip.compress(nifti(array))[:-cut], "truncated: it.* (ends early|without its checksum)")


def test_row_06_flipped_bit_in_the_body(tmp_path):
    content = gzip.compress(nifti())
    for at in range(10, len(content) - 8, 3):
        with pytest.raises(InputError):
            read_scan(put(tmp_path, changed(content, at)))


def test_row_07_trailing_garbage_after_gzip(tmp_path):
    path = put(tmp_path, gzip.compress(nifti()) + b"garbage")
    np.testing.assert_array_equal(native(path), HU)
    assert read_scan(path).warnings == ("something follows the gzip stream of the file; ignored",)
    # Zeros are the padding of tapes.
    assert read_scan(put(tmp_path, gzip.compress(nifti()) + bytes(512))).warnings == ()


def test_row_08_several_gzip_members(tmp_path):
    content = nifti()
    parts = [gzip.compress(content[i : i + 100]) for i in range(0, len(content), 100)]
    np.testing.assert_array_equal(native(put(tmp_path, b"".join(parts))), HU)


def test_row_09_double_gzip(tmp_path):
    refused(tmp_path, gzip.compress(gzip.compress(nifti())), "compressed twice")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_row_10_content_decides_not_the_name(tmp_path, name):
    for content in (nifti(), gzip.compress(nifti())):
        np.testing.assert_array_equal(native(put(tmp_path, content, name)), HU)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.dcm", "a.zip", "a"])
def test_row_11_empty_file(tmp_path, name):
    refused(tmp_path, b"", "is empty|damaged|no DICOM picture|ZIP", name)


class Canary:
    """Unpickling it runs code: the file named here would appear."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a"])
def test_row_12_zip_html_and_pickle_under_another_name(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("a.nii", nifti())
    refused(tmp_path, (tmp_path / "z").read_bytes(), "is a ZIP archive; rename it", name)
    refused(tmp_path, b"<!doctype html><title>Sign in</title>" + b" " * 600, "not a NIfTI", name)
    refused(tmp_path, pickle.dumps(Canary(tmp_path / "canary")) + bytes(600), "not a NIfTI", name)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_row_13_header_of_30000_cubed(tmp_path, compress):
    tracemalloc.start()
    refused(tmp_path, compress(nifti(dim=(3, 30000, 30000, 30000, 1, 1, 1, 1))), "truncated: (at most )?\\d+ of 5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_row_14_gzip_bomb(tmp_path, monkeypatch):
    engine = zlib.compressobj(9, wbits=31)
    bomb = engine.compress(nifti()) + b"".join(engine.compress(bytes(1 << 20)) for _ in range(256)) + engine.flush()
    produced = []

    class Counting:
        def __init__(self, *args):
            self.inner = real(*args)

        def decompress(self, *args):
            produced.append(len(part := self.inner.decompress(*args)))
            return part

        def __getattr__(self, name):
            return getattr(self.inner, name)

    real = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    refused(tmp_path, bomb, "holds more than the 472 bytes its header declares")
    assert sum(produced) <= 2 << 20


def test_row_15_gzip_header_without_an_end(tmp_path):
    # FNAME is announced and never ends.
    refused(tmp_path, b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (4 << 20), "truncated: its gzip stream ends early")


@pytest.mark.parametrize(
    "dim",
    [(3, 5, 0, 3), (3, 5, -4, 3), (3, -32768, 4, 3), (0, 5, 4, 3), (8, 5, 4, 3), (-1, 5, 4, 3), (4, 5, 4, 3, 0)],
)
def test_row_16_dimensions_that_are_none(tmp_path, dim):
    refused(tmp_path, nifti(dim=(*dim, *([1] * (8 - len(dim))))), "corrupt NIfTI header .dimensions", "a.nii")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -352.0, 100.0, 352.5])
def test_row_17_vox_offset_that_is_none(tmp_path, value):
    refused(tmp_path, nifti(vox_offset=value), "corrupt NIfTI header .vox_offset", "a.nii")


@pytest.mark.parametrize("value", [1e30, 1e9])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_row_17_vox_offset_beyond_the_file(tmp_path, value, compress):
    refused(tmp_path, compress(nifti(vox_offset=value)), "truncated")


@pytest.mark.parametrize("code", [0, 1, 3, 55, 255, 1536, 1792, -1, 2826])
def test_row_18_data_types_that_are_none(tmp_path, code):
    refused(tmp_path, nifti(datatype=code), "data type|1-bit|128-bit|complex", "a.nii")


@pytest.mark.parametrize("at", range(0, 348, 7))
def test_row_19_any_header_byte_broken_gives_a_scan_or_one_line(tmp_path, at):
    """The fuzz corpora themselves: test_odd_files.py; minutes of new ones: `make fuzz`."""
    for value in (0x00, 0x7F, 0x80, 0xFF):
        content = bytearray(nifti())
        content[at] = value
        path = put(tmp_path, content)
        with contextlib.suppress(InputError):
            assert np.isfinite(read_scan(path).volume.array).all()


def test_row_19_a_metaimage_that_kills_simpleitk(tmp_path):
    """Found by `make fuzz`: mostly a death by signal, now of a child process (test_dicom.py takes that apart)."""
    head = "ObjectType = Image\nNDims = 99999\nDimSize = 0 4 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    refused(tmp_path, head.encode() + bytes(100), "is damaged", "a.mha")


def test_row_20_five_dimensions_do_not_kill_the_process(tmp_path):
    path = put(tmp_path, nifti(dim=(5, 1, 2, 3, 1, 10, 1, 1)), "a.nii")
    script = "import sys; from pathlib import Path; from preprocess.io import read_scan; read_scan(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1  # not a signal
    assert "not a 3-D scalar CT volume (5-D, 1x2x3x1x10)" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc here to read the peak of the memory from")
def test_row_14_a_bomb_stays_below_200_mb_of_resident_memory(tmp_path):
    """The whole process with its imports; its time is in benchmarks/read.py."""
    head = nifti(dim=(3, 512, 512, 16, 1, 1, 1, 1))[:352]
    bomb = put(tmp_path, gzip.compress(head + bytes(300 << 20), 9))
    # The header alone asks for 8 MB and the stream holds 300.
    script = (
        "import sys; from pathlib import Path; from preprocess.io import read_scan\n"
        "try: read_scan(Path(sys.argv[1]))\n"
        "except Exception as error: print(error, Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(bomb)], capture_output=True, text=True, check=True)
    message, peak_kb = done.stdout.rsplit(maxsplit=1)
    assert "holds more than" in message
    assert int(peak_kb) < 200_000


def nrrd(space="left-posterior-superior", content=None):
    """A gzipped NRRD of the voxels of `made_nifti`, written by hand."""
    head = f"NRRD0004\ntype: short\ndimension: 3\nspace: {space}\nsizes: 5 4 3\n"
    head += "space directions: (0.7,0,0) (0,0.8,0) (0,0,5)\nendian: little\nencoding: gzip\nspace origin: (0,0,0)\n\n"
    return head.encode() + (gzip.compress(HU.tobytes()) if content is None else content)


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_row_5_missing_trailer_of_a_gzipped_nrrd(tmp_path, cut):
    refused(tmp_path, nrrd()[:-cut], "damaged or truncated", "a.nrrd")


@pytest.mark.parametrize(("space", "said"), [("LPS", 0), ("right-anterior-superior", 0), ("scanner-xyz", 1)])
def test_row_42_an_nrrd_in_a_space_that_says_nothing_of_the_patient(tmp_path, space, said):
    scan = read_scan(put(tmp_path, nrrd(space), "a.nrrd"))
    assert sum("which way its axes point" in warning for warning in scan.warnings) == said


def test_errors_of_truncated_files_name_a_remedy(tmp_path):
    refused(tmp_path, nifti()[:300], "copy it again", "a.nii")
    refused(tmp_path, nifti(dim=(3, 500, 500, 500, 1, 1, 1, 1)), "copy the file again", "b.nii")
