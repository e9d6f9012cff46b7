import math

import pytest

from preprocess.errors import UsageError
from stage1_liver.recipe import NAME, REGIONS, LiverPolicy


def test_one_region():
    assert (NAME, REGIONS) == ("liver", ("liver",))


def test_zero_turns_minimum_and_margin_off():
    assert LiverPolicy(0.5, 0.0, 0.0).minimum_ml == 0


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(UsageError, match=r"policy\.threshold = "):
        LiverPolicy(threshold, 0.0, 0.0)


@pytest.mark.parametrize(("minimum_ml", "margin_mm"), [(-1.0, 0.0), (0.0, -1.0)])
def test_negative_sizes_are_refused(minimum_ml, margin_mm):
    with pytest.raises(UsageError, match="must not be negative"):
        LiverPolicy(0.5, minimum_ml, margin_mm)
