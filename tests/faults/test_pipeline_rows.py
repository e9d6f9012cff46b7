"""Rows 51-57 of the catalogue of faults: where the liver is, or is not. With thresholds for networks, see `fakes`."""

import json

import numpy as np
import pytest

from cascade.batch import Outputs
from cascade.case import run_case
from cascade.merge import Fused, clean_up
from cascade.pipeline import NOT_FOUND, OK, Stopwatch, TumorStage, segment
from preprocess.geometry import Box, Grid
from preprocess.io import read_scan, write_image
from preprocess.volume import Volume
from tests.cascade import fakes

SPACING = (3.0, 2.0, 2.0)
LIVER, TUMOR = (slice(4, 16), slice(6, 20), slice(5, 25)), (slice(7, 12), slice(9, 15), slice(8, 14))


def result_of(hu, **options):
    runner = fakes.fake_runner(**options)
    return segment(Volume(hu, Grid(hu.shape, SPACING)), runner.liver, runner.tumor, Stopwatch())


def head():
    """No voxel that the fake network takes for liver; air and soft tissue, so that it is CT."""
    hu = np.full((20, 26, 32), -1000, np.int16)
    hu[:, 4:22, 4:28] = 40
    return hu


def test_row_51_no_liver(tmp_path):
    write_image(tmp_path / "head.nii.gz", Volume(head(), Grid(head().shape, SPACING)))
    line = run_case(tmp_path / "head.nii.gz", fakes.fake_runner(), Outputs(tmp_path / "out"))
    report = json.loads((tmp_path / "out/head/report.json").read_text())
    assert line.startswith("head: liver not found, liver 0 mL")
    assert (report["status"], report["liver_ml"], report["roi"]) == ("liver not found", 0, None)
    assert not read_scan(tmp_path / "out/head/segmentation.nii.gz").volume.array.any()


def test_row_27_a_constant_volume_has_no_liver_whatever_the_network_says():
    hu = np.full((6, 8, 9), 100, np.int16)  # liver to the fake network
    result = result_of(hu)
    assert (result.status, result.labels.array.any()) == (NOT_FOUND, False)


def test_row_52_stage_2_is_not_run_without_a_liver():
    runner = fakes.fake_runner()

    def never(image, where=None):
        raise AssertionError("stage 2 ran")

    tumor = TumorStage(never, runner.tumor.preparation, runner.tumor.policy)
    result = segment(Volume(head(), Grid(head().shape, SPACING)), runner.liver, tumor, Stopwatch())
    assert (result.status, result.box) == (NOT_FOUND, None)


def test_row_53_of_several_parts_the_largest_stays_and_a_large_one_is_said():
    liver = np.zeros((10, 10, 30), bool)
    liver[2:8, 2:8, 2:12] = True  # 360 voxels
    liver[2:8, 2:8, 16:22] = True  # 216
    labels, warnings = clean_up(Fused(liver, np.zeros_like(liver), Grid(liver.shape, (10.0, 10.0, 10.0))), 0)
    assert Box.around(labels.array) == Box((2, 2, 2), (8, 8, 12))
    assert warnings == ("liver in several parts: 360 mL kept, the next of 216 mL dropped",)
    liver[2:8, 2:8, 16:22] = False
    liver[3, 3, 20] = True
    _, warnings = clean_up(Fused(liver, np.zeros_like(liver), Grid(liver.shape, (10.0, 10.0, 10.0))), 0)
    assert warnings == ()


@pytest.mark.parametrize("axis", [1, 2])
def test_row_53_situs_inversus_is_no_other_case(axis):
    """The liver on the other side, or at the back, is found all the same: no step knows sides."""
    plain, mirrored = result_of(fakes.scene()), result_of(np.ascontiguousarray(np.flip(fakes.scene(), axis)))
    assert mirrored.labels.ml(1) == pytest.approx(plain.labels.ml(1), rel=0.1)
    assert mirrored.labels.ml(2) == pytest.approx(plain.labels.ml(2), rel=0.1)


@pytest.mark.parametrize(
    ("cut", "side"),
    [
        ((slice(8, None), slice(None), slice(None)), "lower end"),
        ((slice(None, 10), slice(None), slice(None)), "upper end"),
        ((slice(None), slice(8, None), slice(None)), "front"),
        ((slice(None), slice(None, 14), slice(None)), "back"),
        ((slice(None), slice(None), slice(8, None)), "right side"),
        ((slice(None), slice(None), slice(None, 20)), "left side"),
    ],
)
def test_row_54_a_liver_cut_by_the_border_is_said(cut, side):
    result = result_of(np.ascontiguousarray(fakes.scene()[cut]))
    assert result.status == OK
    assert result.warnings == (f"the liver is cut by the {side} of the scan",)


@pytest.mark.parametrize("end", ["low", "high"])
def test_row_55_a_region_at_the_border_is_not_shifted(end):
    """The same liver in a scan that ends right at it and in one that goes on: the same voxels inside both."""
    cut = (slice(4, None), slice(6, None), slice(5, None)) if end == "low" else (slice(16), slice(20), slice(25))
    whole, part = fakes.scene(), np.ascontiguousarray(fakes.scene()[cut])
    inside, outside = (
        result_of(part, spacing_mm=SPACING).labels.array,
        result_of(whole, spacing_mm=SPACING).labels.array,
    )
    np.testing.assert_array_equal(inside == 2, outside[cut] == 2)
    liver = np.zeros(whole.shape, bool)
    liver[LIVER] = True
    # The coarse grid blurs the liver's edge; one voxel from it all is sure.
    assert (inside[liver[cut]] > 0).mean() > 0.98


def test_row_56_a_tumour_outside_of_the_liver_does_not_count():
    liver = np.zeros((6, 8, 10), bool)
    liver[1:5, 1:7, 1:6] = True
    tumor = np.zeros_like(liver)
    tumor[2:4, 2:4, 2:4] = tumor[2:4, 2:4, 7:9] = True
    labels, _ = clean_up(Fused(liver, tumor, Grid(liver.shape, (1.0, 1.0, 1.0))), 0)
    assert Box.around(labels.array == 2) == Box((2, 2, 2), (4, 4, 4))
    assert not labels.array[~liver].any()


def test_row_57_a_liver_as_large_as_the_scan():
    hu = np.full((12, 14, 16), 100, np.int16)
    hu[4:8, 5:9, 6:10] = 200
    result = result_of(hu)
    assert result.status == OK
    assert result.box == Box((0, 0, 0), hu.shape)
    assert (result.labels.array > 0).all()
    assert "cut by the lower end and upper end and front and back and right side and left side" in result.warnings[0]
