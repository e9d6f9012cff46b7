"""The nine numbers that compare one mask with another, and their value where a mask is empty.

=========================  ==============  ===================  =====================
metric                     both empty      prediction empty     truth empty
=========================  ==============  ===================  =====================
`dice`, `nsd1` ... `nsd3`  1               0                    0
`voe`                      0               1                    1
`rvd`                      0               -1                   none (divides by 0)
`assd`, `rmsd`, `msd`      0               none                 none
=========================  ==============  ===================  =====================

That is the convention `lits`; in `nnunet` every value of the first column is none. A value of none is left out of every
mean. The challenge's scorer writes 9001 mm for a distance to nothing, which turns a mean into a count of empty masks.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

import numpy as np

from evaluate.conventions import Convention, empty_dice
from evaluate.overlap import Mask, Overlap
from evaluate.surface import surface_distances
from evaluate.surface_dice import surface_dice
from preprocess.geometry import Box, Triple

#: The tolerances of `nsd1`, `nsd2` and `nsd3` in mm.
NSD_TOLERANCES_MM = (1.0, 2.0, 3.0)


@dataclass(frozen=True)
class MaskScore:
    """How well a predicted mask matches a true one; None where a metric has no value (see the table above).

    `dice` 2|P n T| / (|P| + |T|); `voe` volumetric overlap error, 1 - |P n T| / |P u T|; `rvd` relative volume
    difference, (|P| - |T|) / |T|, negative for a prediction that is too small; `assd`, `rmsd`, `msd` surface distances
    in mm (`evaluate.surface`); `nsd1`, `nsd2`, `nsd3` surface Dice at 1, 2 and 3 mm (`evaluate.surface_dice`).
    """

    dice: float | None
    voe: float | None
    rvd: float | None
    assd: float | None
    rmsd: float | None
    msd: float | None
    nsd1: float | None
    nsd2: float | None
    nsd3: float | None

    def values(self) -> dict[str, float | None]:
        """The metrics by name, in the order of `METRICS`."""
        return dict(zip(METRICS, astuple(self), strict=True))


#: The names of the metrics, in the order of every table.
METRICS = tuple(field.name for field in fields(MaskScore))


def mask_score(prediction: Mask, truth: Mask, spacing_mm: Triple, voxels: Overlap, convention: Convention) -> MaskScore:
    """Score two boolean masks (z, y, x) of one shape, with `spacing_mm` (z, y, x).

    `voxels` is their overlap. Surfaces are sought in a box around both masks only.
    Raises ValueError for a convention that is not known.
    """
    both_empty = empty_dice(convention)
    if voxels.is_empty:
        lost = None if both_empty is None else 1 - both_empty
        return MaskScore(both_empty, lost, lost, lost, lost, lost, both_empty, both_empty, both_empty)
    if not voxels.truth:
        return MaskScore(0.0, 1.0, None, None, None, None, 0.0, 0.0, 0.0)
    if not voxels.prediction:
        return MaskScore(0.0, 1.0, -1.0, None, None, None, 0.0, 0.0, 0.0)
    prediction, truth = _cropped(prediction, truth)
    distances = surface_distances(prediction, truth, spacing_mm)
    nsd1, nsd2, nsd3 = surface_dice(prediction, truth, spacing_mm, NSD_TOLERANCES_MM)
    return MaskScore(
        dice=voxels.dice(),
        voe=1 - voxels.iou,
        rvd=(voxels.prediction - voxels.truth) / voxels.truth,
        assd=distances.assd,
        rmsd=distances.rmsd,
        msd=distances.msd,
        nsd1=nsd1,
        nsd2=nsd2,
        nsd3=nsd3,
    )


def _cropped(prediction: Mask, truth: Mask) -> tuple[Mask, Mask]:
    box = Box.around(prediction | truth)
    assert box is not None, "neither mask is empty here"
    return np.ascontiguousarray(prediction[box.slices]), np.ascontiguousarray(truth[box.slices])
