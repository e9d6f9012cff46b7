import math

import pytest

from preprocess.errors import UsageError
from stage2_tumor.recipe import NAME, REGIONS, TumorPolicy


def policy(**changes):
    fields = {
        "liver_threshold": 0.5,
        "tumor_threshold": 0.5,
        "tumor_peak": 0.9,
        "minimum_lesion_mm3": 50.0,
        "reach_mm": 10.0,
        "minimum_contrast_hu": 15.0,
    }
    return TumorPolicy(**fields | changes)


def test_the_liver_comes_before_the_tumour():
    assert (NAME, REGIONS) == ("tumor", ("liver", "tumor"))


def test_zero_turns_minimum_and_reach_off():
    assert policy(minimum_lesion_mm3=0.0, reach_mm=0.0).reach_mm == 0


@pytest.mark.parametrize("name", ["liver_threshold", "tumor_threshold", "tumor_peak"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
def test_a_threshold_outside_0_to_1_is_refused(name, value):
    with pytest.raises(UsageError, match=rf"policy\.{name} = {value}"):
        policy(**{name: value})


@pytest.mark.parametrize("name", ["minimum_lesion_mm3", "reach_mm", "minimum_contrast_hu"])
def test_negative_sizes_are_refused(name):
    with pytest.raises(UsageError, match="must not be negative"):
        policy(**{name: -1.0})
