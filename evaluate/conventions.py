"""The two named rules for masks that are empty: a score means nothing without the name of its rule.

`lits` follows Bilic et al., "The Liver Tumor Segmentation Benchmark (LiTS)", Medical Image Analysis 84, 102680, 2023:
an empty prediction of an empty truth is perfect. `nnunet` follows nnU-Net (Isensee et al., Nature Methods 18, 203-211,
2021): such a case has no score and is left out of every mean. Everything else is the same in both. With 13 tumour-free
cases of 131, as in LiTS, the rule alone can move the mean tumour Dice by 0.10.
"""

from __future__ import annotations

from typing import Literal

Convention = Literal["lits", "nnunet"]

#: Each convention with its rule for an empty prediction of an empty truth, as a clause for a table's legend.
CONVENTIONS: dict[Convention, str] = {
    "lits": "an empty prediction of an empty truth scores 1",
    "nnunet": "an empty prediction of an empty truth has no score and is left out of the mean",
}


def empty_dice(convention: Convention) -> float | None:
    """The Dice of an empty prediction of an empty truth; None where the convention leaves such a case out.

    Raises ValueError for another name.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention {convention!r} is not known; use one of {', '.join(CONVENTIONS)}")
    return 1.0 if convention == "lits" else None
