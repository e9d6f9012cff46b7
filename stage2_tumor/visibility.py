"""Which lesions count by what can be seen of them: the HU as a second witness beside the networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.components import Mask, components
from preprocess.geometry import Triple
from preprocess.lesions import contrasts
from stage2_tumor.recipe import TumorPolicy


def faint_and_clear(
    tumor: Mask, liver: Mask, hu: NDArray[Any], spacing_mm: Triple, policy: TumorPolicy
) -> tuple[Mask, Mask]:
    """The 6-connected parts of `tumor` inside `liver` (both z, y, x) that are faint, and those that are clear.

    Faint: the mean differs from that of the liver around by less than `policy.minimum_contrast_hu`. Clear: it is darker
    by so much as tumours mostly are, `policy.clear_contrast_hu`, in a part of `policy.clear_mm3` or more. A part with
    no liver around is neither.
    """
    numbered, sizes = components(tumor & liver)
    contrast = contrasts(numbered, liver & ~tumor, hu, spacing_mm)
    least, most = policy.clear_contrast_hu
    mm3 = sizes * float(np.prod(spacing_mm))
    clear = (contrast <= -least) & (contrast >= -most) & (mm3 >= policy.clear_mm3)
    return (np.abs(contrast) < policy.minimum_contrast_hu)[numbered], clear[numbered]
