import math

import pytest

from preprocess.errors import UsageError
from stage2_tumor.recipe import NAME, REGIONS, TumorPolicy


def policy(**changes):
    fields = {
        "stage2_weight": 0.5,
        "liver_threshold": 0.5,
        "tumor_threshold": 0.5,
        "tumor_peak": 0.9,
        "minimum_lesion_mm3": 50.0,
        "reach_mm": 10.0,
        "minimum_contrast_hu": 15.0,
        "clear_peak": 0.75,
        "clear_contrast_hu": (30.0, 55.0),
        "clear_mm3": 250.0,
        "outline_threshold": 0.05,
        "outline_share": 0.5,
        "fat_share": 0.5,
        "gallbladder_hu": 20.0,
    }
    return TumorPolicy(**fields | changes)


def test_the_liver_comes_before_the_tumour():
    assert (NAME, REGIONS) == ("tumor", ("liver", "tumor"))


def test_zero_turns_minimum_and_reach_off():
    assert policy(minimum_lesion_mm3=0.0, reach_mm=0.0).reach_mm == 0


@pytest.mark.parametrize("name", ["liver_threshold", "tumor_threshold", "tumor_peak", "outline_threshold"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
def test_a_threshold_outside_0_to_1_is_refused(name, value):
    with pytest.raises(UsageError, match=rf"policy\.{name} = {value}"):
        policy(**{name: value})


@pytest.mark.parametrize("name", ["minimum_lesion_mm3", "reach_mm", "minimum_contrast_hu", "clear_mm3"])
def test_negative_sizes_are_refused(name):
    with pytest.raises(UsageError, match="must not be negative"):
        policy(**{name: -1.0})


@pytest.mark.parametrize("value", [0.0, -0.5, 1.5, math.nan])
def test_a_weight_that_leaves_out_stage_2_or_turns_stage_1_round_is_refused(value):
    with pytest.raises(UsageError, match=rf"policy\.stage2_weight = {value} must lie above 0"):
        policy(stage2_weight=value)


@pytest.mark.parametrize("name", ["outline_share", "fat_share"])
@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_a_share_of_the_contrast_that_no_voxel_could_have_is_refused(name, value):
    with pytest.raises(UsageError, match=rf"policy\.{name} = {value} must be 0, or lie below 1"):
        policy(**{name: value})


@pytest.mark.parametrize("value", [0.0, 1.1, math.nan])
def test_a_peak_of_clear_lesions_that_none_has_is_refused(value):
    assert policy(clear_peak=1.0).clear_peak == 1
    with pytest.raises(UsageError, match=rf"policy\.clear_peak = {value} must lie above 0, and not above 1"):
        policy(clear_peak=value)


@pytest.mark.parametrize("value", [(-1.0, 5.0), (6.0, 5.0), (math.nan, 5.0)])
def test_a_clear_contrast_that_is_none_is_refused(value):
    with pytest.raises(UsageError, match=r"policy\.clear_contrast_hu = \[.*\] must be the least and the most, from 0"):
        policy(clear_contrast_hu=value)


def test_stage_2_may_decide_alone():
    assert policy(stage2_weight=1.0).stage2_weight == 1
