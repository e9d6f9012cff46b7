import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cascade.pipeline import NOT_FOUND, OK, Stopwatch, liver_stage, segment, tumor_stage
from preprocess.geometry import Box, Grid
from preprocess.preparation import Preparation
from preprocess.volume import Volume

_spec = importlib.util.spec_from_file_location("fakes", Path(__file__).with_name("fakes.py"))
fakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fakes)

GRID = Grid((20, 26, 32), (3.0, 2.0, 2.0), (10.0, -20.0, 30.0))


def result_of(hu, grid=GRID, **options):
    runner = fakes.fake_runner(**options)
    return segment(Volume(hu, grid), runner.liver, runner.tumor, Stopwatch())


def test_liver_and_tumour_land_where_they_are():
    result = result_of(fakes.scene())
    assert result.status == OK
    assert result.box == Box((2, 3, 3), (18, 23, 27))  # the liver grown by 6 mm, on the coarse grid's voxels
    array = result.labels.array
    assert Box.around(array == 2) == Box((7, 9, 8), (12, 15, 14))
    inner = array[5:15, 7:19, 6:24]
    assert (inner > 0).all()
    assert not array[:3].any()
    assert not array[:, :, 26:].any()


def test_no_liver_gives_an_empty_mask_and_the_status_never_a_guess():
    calls = []
    runner = fakes.fake_runner()
    hu = np.full((5, 6, 7), -100, np.int16)
    spy = type(runner.tumor)(lambda *a: calls.append(a), runner.tumor.preparation, runner.tumor.policy)
    result = segment(Volume(hu, Grid((5, 6, 7), (3.0, 2.0, 2.0))), runner.liver, spy, Stopwatch())
    assert result.status == NOT_FOUND
    assert not result.labels.array.any()
    assert result.box is None
    assert calls == []


def test_a_liver_that_stage_2_denies_is_not_found():
    runner = fakes.fake_runner()
    half = type(runner.liver)(lambda *a: 0.6 * fakes.bright(*a), runner.liver.preparation, runner.liver.policy)
    rest = (runner.tumor.preparation, runner.tumor.policy)
    nothing = type(runner.tumor)(lambda image, _: np.zeros((2, *image.shape), np.float32), *rest)
    result = segment(Volume(fakes.scene(), GRID), half, nothing, Stopwatch())
    assert result.status == NOT_FOUND
    assert not result.labels.array.any()
    assert result.box is not None  # stage 1 found it: the report must not say that it did not
    assert not result.fused.labels.array.any()
    assert "mL of liver, but the two stages disagree (Dice 0.00)" in result.warnings[0]


def test_a_liver_that_is_too_small_to_count_is_said():
    runner = fakes.fake_runner()
    large = replace(runner.liver, policy=replace(runner.liver.policy, minimum_ml=1e3))
    result = segment(Volume(fakes.scene(), GRID), large, runner.tumor, Stopwatch())
    assert (result.status, result.box) == (NOT_FOUND, None)
    assert "mL of liver, but too little of it counts" in result.warnings[0]


def test_an_empty_mask_is_never_ok_however_little_counts_as_a_liver():
    runner = fakes.fake_runner()
    liver = replace(runner.liver, policy=replace(runner.liver.policy, minimum_ml=0.0))
    nothing = replace(runner.tumor, infer=lambda image, _: np.zeros((2, *image.shape), np.float32))
    assert segment(Volume(fakes.scene(), GRID), liver, nothing, Stopwatch()).status == NOT_FOUND


def test_without_stage_2_there_is_liver_only():
    result = result_of(fakes.scene(), tumor=False)
    assert set(np.unique(result.labels.array)) == {0, 1}
    assert result.labels.array[9, 12, 10] == 1


def test_a_liver_that_leaves_the_scan_is_kept_and_said():
    hu = fakes.scene()[4:, :, 5:]
    result = result_of(np.ascontiguousarray(hu), Grid((16, 26, 27), (3.0, 2.0, 2.0)))
    assert result.status == OK
    assert result.box.start[0] == 0
    assert result.warnings == ("the liver is cut by the lower end and right side of the scan",)


def test_a_small_lesion_is_dropped_by_volume():
    hu = fakes.scene()
    assert result_of(hu, minimum_lesion_mm3=1.0).labels.ml(2) > 0
    assert result_of(hu, minimum_lesion_mm3=1e5).labels.ml(2) == 0
    assert result_of(hu, minimum_lesion_mm3=1e5).labels.array[9, 12, 10] == 1


@pytest.mark.parametrize("shape", [(1, 26, 32), (4, 5, 7), (3, 1, 1)])
def test_tiny_scans_run(shape):
    hu = np.full(shape, 100, np.int16)
    result = result_of(hu, Grid(shape, (5.0, 4.0, 4.0)))
    assert result.labels.array.shape == shape


@pytest.mark.parametrize("stage", [liver_stage, tumor_stage])
def test_models_see_low_scans_continued(stage):
    model = SimpleNamespace(
        preparation=Preparation((5.0, 2.0, 2.0), (-160.0, 240.0)), settings=SimpleNamespace(policy=1)
    )
    seen = []
    made = stage([model], lambda _: lambda image, where: seen.append(image.shape) or image[None])
    assert made.infer(np.zeros((4, 6, 7), np.float32), None).shape == (1, 4, 6, 7)
    assert seen == [(16, 6, 7)]


@pytest.mark.parametrize(("minimum_ml", "status"), [(2.5, OK), (2.6, NOT_FOUND)])
def test_of_a_low_scan_less_is_enough_of_a_liver(minimum_ml, status):
    """Three of 63 mm are shown: 0.12 mL of liver are as much as 2.52 would be in a higher one."""
    hu = np.full((1, 10, 10), -100, np.int16)
    hu[0, 3:7, 2:8] = 100
    grid = Grid(hu.shape, (3.0, 1.0, 5 / 3))
    runner = fakes.fake_runner(spacing_mm=grid.spacing_mm)
    preparation = Preparation(grid.spacing_mm, fakes.WINDOW_HU)
    liver = replace(runner.liver, preparation=preparation, policy=replace(runner.liver.policy, minimum_ml=minimum_ml))
    assert segment(Volume(hu, grid), liver, runner.tumor, Stopwatch()).status == status
