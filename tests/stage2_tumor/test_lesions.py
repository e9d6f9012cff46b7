from dataclasses import replace

import pytest

from preprocess.errors import UsageError
from stage2_tumor.lesions import Lesions

LESIONS = Lesions(
    share=1.0,
    most=1,
    diameter_mm=(12.0, 12.0),
    dark_hu=(60.0, 60.0),
    bright_hu=(40.0, 40.0),
    bright_share=0.0,
    rim_share=0.0,
    core_share=0.0,
    calcified_share=0.0,
    edge_mm=(0.5, 0.5),
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"share": 1.5}, "every share must lie in 0..1"),
        ({"most": 0}, "lesions.most = 0 must be at least 1"),
        ({"edge_mm": (3.0, 1.0)}, r"lesions.edge_mm = \[3.0, 1.0\] must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, told):
    with pytest.raises(UsageError, match=told):
        replace(LESIONS, **changes)
