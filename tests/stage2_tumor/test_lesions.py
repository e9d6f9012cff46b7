from dataclasses import replace

import pytest

from cascade.settings import load_settings
from preprocess.errors import UsageError

LESIONS = load_settings("tumor").lesions


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
