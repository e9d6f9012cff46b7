"""What one case left behind at each stage, and the sequences of masks that lead from the truth to the final mask.

Each mask of a sequence differs from the one before by one kind of error, so that their Dice add up: see
`docs/report.md` for the definition and `evaluate.waterfall` for the names of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluate.overlap import Mask
from evaluate.scores import TOLERANCE_MM
from preprocess.geometry import Box
from preprocess.volume import LIVER, TUMOR, LabelMap


@dataclass(frozen=True, eq=False)
class StageMasks:
    """What one case left behind at each stage, on the image's canonical grid (z, y, x) except for the coarse pair.

    `coarse_truth` and `coarse_liver` lie on the coarse grid of stage 1; `stage1_liver` is its liver on the image's.
    `roi` is the part that stage 2 saw, None when no liver was found. `stage2` holds the raw classes of stage 2 in that
    ROI, before clean-up, and 0 outside; its tumours lie in its liver. `stage2_tumor` holds them before the liver took
    some away. `stage2_true_roi` is like `stage2` for the ROI around the true liver, None when there is no true liver or
    it was not run. `merged` is the final mask. With `scores_tumor` False the true tumours are unusable. `held_out` is
    whether the case was kept out of training, None when unknown.
    Raises ValueError for label maps on two grids, masks of two shapes, or a ROI outside the image.
    """

    case: str
    truth: LabelMap
    scores_tumor: bool
    held_out: bool | None
    coarse_truth: Mask
    coarse_liver: Mask
    stage1_liver: Mask
    roi: Box | None
    stage2_true_roi: LabelMap | None
    stage2_tumor: Mask
    stage2: LabelMap
    merged: LabelMap

    def __post_init__(self) -> None:
        for labels in (self.stage2_true_roi, self.stage2, self.merged):
            if labels is not None and not labels.grid.mismatch_mm(self.truth.grid) <= TOLERANCE_MM:
                raise ValueError(f"case {self.case}: {labels.grid} is not the grid of the truth, {self.truth.grid}")
        for name in ("stage1_liver", "stage2_tumor"):
            if getattr(self, name).shape != self.truth.grid.shape:
                raise ValueError(f"case {self.case}: {name} has shape {getattr(self, name).shape}")
        if self.coarse_liver.shape != self.coarse_truth.shape:
            raise ValueError(f"case {self.case}: coarse_liver has shape {self.coarse_liver.shape}")
        if self.roi and any(b > n for b, n in zip(self.roi.stop, self.truth.grid.shape, strict=True)):
            raise ValueError(f"case {self.case}: {self.roi} leaves the image of shape {self.truth.grid.shape}")

    def liver_sequence(self, z: int) -> tuple[Mask, ...]:
        """Slice `z` of the masks from the true liver to the final one: one more than `waterfall.LIVER_STEPS`."""
        truth = self.truth.array[z] >= LIVER
        stage1 = self.stage1_liver[z]
        stage2 = self.stage2.array[z] >= LIVER
        return (
            truth,
            truth & stage1,
            stage1,
            np.where(truth, stage2, stage1),
            stage2,
            self.merged.array[z] >= LIVER,
        )

    def tumor_sequence(self, z: int) -> tuple[Mask, ...]:
        """Slice `z` of the masks from the true tumours to the final ones: one more than `waterfall.TUMOR_STEPS`."""
        truth = self.truth.array[z] == TUMOR
        raw, fused = self.stage2_tumor[z], self.stage2.array[z] == TUMOR
        in_roi = self._in_roi(z)
        # A ROI that was not run says nothing of its own: all that stage 2 misses counts as missed in a perfect one.
        perfect = raw if self.stage2_true_roi is None else self.stage2_true_roi.array[z] == TUMOR
        return (
            truth,
            truth & (self.roi is not None),
            truth & in_roi,
            truth & in_roi & perfect,
            truth & raw,
            truth & fused,
            fused & (self.truth.array[z] >= LIVER),
            fused,
            self.merged.array[z] == TUMOR,
        )

    def _in_roi(self, z: int) -> Mask:
        inside = np.zeros(self.truth.grid.shape[1:], bool)
        if self.roi and self.roi.start[0] <= z < self.roi.stop[0]:
            inside[self.roi.slices[1:]] = True
        return inside
