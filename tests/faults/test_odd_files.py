"""Every line of `expected.tsv` of the collection of real odd files, where it lies beside the repository.

REJECT: one line, exit 3. ACCEPT: read. ACCEPT+WARN: read with a warning, or one line where the row allows for that.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from cascade.case import load_runner
from cascade.pipeline import Stopwatch, segment
from evaluate.overlap import dice
from preprocess.errors import InputError
from preprocess.io import read_labels, read_scan

ODD = Path(__file__).parents[3] / "shared/odd"
TABLE = ODD / "expected.tsv"
ROWS = list(csv.DictReader(TABLE.read_text("utf-8").splitlines(), delimiter="\t")) if TABLE.exists() else []

#: Rows that are about a label, and are no CT when given as one.
LABELS = {"series/ct_liver_3_slices_label.nrrd"}
#: The ball is the same file as nifti/label_values_0_257.nii.gz, which must be refused.
EITHER = {"nrrd/BallBinary30x30x30.nii.gz", "nrrd/BallBinary30x30x30_gz_lineskip.nrrd"}
SAYS = {
    "nifti/5D_small.nii": r"not a 3-D scalar CT volume \(5-D",
    "nifti/2d_8x8.nii": "2-D",
    "nifti/rgb24_3d.nii": "colour",
    "nifti/lonely_nifti2.hdr.gz": "lonely_nifti2.img",
    "nifti/labels_0_117.nii.gz": "label map",
    "nifti/label_values_0_257.nii.gz": "label map",
    "series/all_slices_same_position": "share one position",
    "series/missing_slice_tilted": "tilt",
    "series/two_slices": "MR",
    "series/rgb_series": "MR",
    "series/ge_head_tilt_variable_spacing": "tilt",
    "nrrd/test1d_ascii.nrrd": "1-D",
    "dicom/CT0012.fragmented_no_bot_jpeg_baseline.51.dcm": "multi-frame",
    "dicom/CT_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm": "transfer syntax .*4.55 is not supported",
    "dicom/seg_image_ct_true_fractional.dcm": "SEG",
}


@pytest.mark.skipif(not ROWS, reason=f"no odd files at {ODD}")
def test_the_table_is_whole():
    assert len(ROWS) == 38
    assert {row["class"] for row in ROWS} == {"REJECT", "ACCEPT", "ACCEPT+WARN"}
    assert SAYS.keys() <= {row["file"] for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
def test_odd_file(row):
    name, path = row["file"], ODD / row["file"]
    if name in LABELS:
        assert read_labels(path).array.max() == 1
        return
    if row["class"] == "REJECT" or name in SAYS or name in EITHER:
        with pytest.raises(InputError, match=SAYS.get(name, "[^ ]")) as caught:
            read_scan(path)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 3
        return
    scan = read_scan(path)
    assert scan.volume.array.size > 0
    if row["class"] == "ACCEPT+WARN":
        assert scan.warnings


@pytest.mark.skipif(not ROWS, reason=f"no odd files at {ODD}")
def test_compressed_twins_hold_the_same_hu():
    twins = {path.name[3:6]: read_scan(path).volume.array for path in (ODD / "dicom").glob("CT_[!.]*[!5].dcm")}
    twins["RLE"] = read_scan(next((ODD / "dicom").glob("CT_RLE*"))).volume.array
    np.testing.assert_array_equal(twins["RLE"], twins["Def"])
    # JPEG 2000 with loss.
    assert np.abs(twins["JPE"].astype(int) - twins["Def"]).max() <= 5


@pytest.mark.skipif(not ROWS, reason=f"no odd files at {ODD}")
def test_three_real_slices_with_padding():
    scan = read_scan(ODD / "series/ct_liver_3_slices")
    assert scan.volume.array.shape == (3, 512, 512)
    assert scan.warnings == ()
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(ODD / "series/ct_liver_3_slices"))
    other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(names))
    assert other.min() == -3024
    np.testing.assert_array_equal(scan.volume.array, other.clip(-1024))


@pytest.mark.skipif(not ROWS, reason=f"no odd files at {ODD}")
def test_the_installed_models_find_the_liver_in_three_slices():
    """Of 1 mm, and of no patient that they were trained on; .84 and .93 by the models of two days, and nothing before
    scans so low were continued."""
    runner = load_runner(None, None, "cpu", liver_only=False)
    volume = read_scan(ODD / "series/ct_liver_3_slices").volume
    found = segment(volume, runner.liver, runner.tumor, Stopwatch())
    truth = read_labels(ODD / "series/ct_liver_3_slices_label.nrrd", like=volume.grid)
    assert dice(found.labels.array > 0, truth.array > 0) > 0.8


@pytest.mark.skipif(not ROWS, reason=f"no odd files at {ODD}")
def test_labels_with_other_values_are_refused_as_labels():
    for name in ("labels_0_117", "label_values_0_257"):
        with pytest.raises(InputError, match="label values"):
            read_labels(ODD / f"nifti/{name}.nii.gz")
