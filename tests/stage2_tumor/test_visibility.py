import numpy as np
import pytest

from stage2_tumor.visibility import faint_and_clear
from tests.stage2_tumor.test_recipe import policy

SPACING_MM = (3.0, 2.0, 1.0)
LESION, OTHER = np.s_[2:4, 10:14, 18:22], np.s_[2:4, 3:5, 30:33]  # 32 and 12 voxels of 6 mm3


def judged(hu, **changes):
    """Whether the lesion of `hu` in liver of 100 HU is faint, and clear; and the other one, of 60 HU."""
    tumor, liver, image = (np.full((6, 24, 40), value) for value in (False, True, 100.0))
    liver[:, :, 38:], image[:, :, 38:] = False, -50.0
    tumor[LESION] = tumor[OTHER] = tumor[0, 0, 39] = True  # the last one outside the liver
    image[LESION], image[OTHER] = hu, 60.0
    limits = {"minimum_contrast_hu": 15.0, "clear_contrast_hu": (30.0, 55.0), "clear_mm3": 192.0}
    found = faint_and_clear(tumor, liver, image, SPACING_MM, policy(**limits | changes))
    for mask in found:
        assert not mask[~(tumor & liver)].any()
        assert mask[LESION].all() == mask[LESION].any()
    return [(bool(mask[LESION].all()), bool(mask[OTHER].all())) for mask in found]


@pytest.mark.parametrize(
    ("hu", "faint", "clear"),
    [
        (86, True, False),
        (85, False, False),
        (71, False, False),
        (70, False, True),
        (45, False, True),
        (44, False, False),  # fat in part
        (140, False, False),  # brighter
        (114, True, False),
    ],
)
def test_by_its_contrast_to_the_liver_around_a_lesion_is_faint_or_clear(hu, faint, clear):
    assert judged(hu) == [(faint, False), (clear, False)]  # the other one is too small


def test_the_least_size_of_a_clear_one():
    assert judged(60, clear_mm3=193.0) == [(False, False), (False, False)]
    assert judged(60, clear_mm3=72.0) == [(False, False), (True, True)]


def test_what_is_faint_is_not_clear():
    assert judged(60, minimum_contrast_hu=41.0) == [(True, True), (False, False)]


def test_a_policy_that_asks_for_neither_gets_neither():
    assert judged(100, minimum_contrast_hu=0.0, clear_peak=1.0, clear_contrast_hu=(0.0, 0.0)) == [(False, False)] * 2


def test_nothing_is_faint_with_a_least_contrast_of_0():
    assert judged(100, minimum_contrast_hu=0.0) == [(False, False), (False, False)]
