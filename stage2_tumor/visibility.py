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

    Faint: it differs from the liver around (`preprocess.lesions.contrasts`) by less than `policy.minimum_contrast_hu`.
    Clear: it is darker by so much as tumours mostly are, `policy.clear_contrast_hu`, in a part of `policy.clear_mm3` or
    more. What is faint is not clear, and a part with no liver around is neither. Where the policy does not ask for it
    nothing is either.
    """
    if policy.minimum_contrast_hu == 0 and policy.clear_peak == 1:
        return np.zeros_like(tumor), np.zeros_like(tumor)
    numbered, sizes = components(tumor & liver)
    contrast = contrasts(numbered, liver & ~tumor, hu, spacing_mm)
    least, most = policy.clear_contrast_hu
    mm3 = sizes * float(np.prod(spacing_mm))
    faint = np.abs(contrast) < policy.minimum_contrast_hu
    clear = (contrast <= -least) & (contrast >= -most) & (mm3 >= policy.clear_mm3) & ~faint
    return faint[numbered], clear[numbered]
