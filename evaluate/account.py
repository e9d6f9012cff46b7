"""What each stage of the cascade wins and loses, case by case, so that work goes where the Dice is lost.

All Dice follow LiTS (Bilic et al., Medical Image Analysis 84, 102680, 2023): liver = label >= 1, tumour = label == 2,
both empty scores 1. Runs no stage: it compares what the stages left behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean

import numpy as np

from evaluate.fates import LesionFate, lesion_fates
from evaluate.overlap import class_overlaps, dice
from evaluate.stage_masks import StageMasks
from evaluate.waterfall import Waterfall, liver_waterfall, mean_waterfall, tumor_waterfall
from preprocess.volume import LIVER, TUMOR, LabelMap


@dataclass(frozen=True)
class StageAccount:
    """One case's numbers, stage by stage; None where a number does not apply (see `StageMasks.scores_tumor`).

    `stage1_liver_dice_coarse`, `stage1_liver_dice`: liver of stage 1 on its coarse grid and on the image's.
    `roi_liver_share`, `roi_tumor_share`: share of the true liver and tumour voxels inside the ROI; 0 without a ROI.
    `stage2_tumor_dice_true_roi`, `stage2_tumor_dice_predicted_roi`: raw tumours of stage 2 in either ROI.
    `merged_liver_dice`, `merged_tumor_dice`: the final mask. `cleanup_liver_gain`, `cleanup_tumor_gain`: final Dice
    minus the Dice of the raw classes of stage 2; below 0 where clean-up does harm. `liver`, `tumor`: where the Dice
    went, step by step. `lesions`: what became of each true tumour.
    """

    case: str
    held_out: bool | None
    stage1_liver_dice_coarse: float
    stage1_liver_dice: float
    roi_liver_share: float | None
    roi_tumor_share: float | None
    stage2_tumor_dice_true_roi: float | None
    stage2_tumor_dice_predicted_roi: float | None
    merged_liver_dice: float
    merged_tumor_dice: float | None
    cleanup_liver_gain: float
    cleanup_tumor_gain: float | None
    liver: Waterfall
    tumor: Waterfall | None
    lesions: tuple[LesionFate, ...]


_NO_NUMBERS = ("case", "held_out", "liver", "tumor", "lesions")

#: The numbers of a `StageAccount`, in the order of the stages.
ACCOUNT_FIELDS = tuple(f.name for f in fields(StageAccount) if f.name not in _NO_NUMBERS)


def account(masks: StageMasks) -> StageAccount:
    """The numbers of one case. Holds at most three masks of the image's size beside its input."""
    liver_share, tumor_share = _roi_shares(masks)
    raw_liver, raw_tumor = _dices(masks.stage2, masks)
    liver, tumor = _dices(masks.merged, masks)
    return StageAccount(
        case=masks.case,
        held_out=masks.held_out,
        stage1_liver_dice_coarse=dice(masks.coarse_liver, masks.coarse_truth),
        stage1_liver_dice=dice(masks.stage1_liver, masks.truth.array >= LIVER),
        roi_liver_share=liver_share,
        roi_tumor_share=tumor_share,
        stage2_tumor_dice_true_roi=_dices(masks.stage2_true_roi, masks)[1] if masks.stage2_true_roi else None,
        stage2_tumor_dice_predicted_roi=raw_tumor,
        merged_liver_dice=liver,
        merged_tumor_dice=tumor,
        cleanup_liver_gain=liver - raw_liver,
        cleanup_tumor_gain=None if tumor is None or raw_tumor is None else tumor - raw_tumor,
        liver=liver_waterfall(masks),
        tumor=tumor_waterfall(masks),
        lesions=lesion_fates(masks),
    )


def _dices(labels: LabelMap, masks: StageMasks) -> tuple[float, float | None]:
    liver, tumor = class_overlaps(labels.array, masks.truth.array)
    return liver.dice(), tumor.dice() if masks.scores_tumor else None


def _roi_shares(masks: StageMasks) -> tuple[float | None, float | None]:
    """Shares of the true liver and of the true tumour inside the ROI, None where there is nothing to hold."""
    shares: list[float | None] = []
    for lowest, scored in ((LIVER, True), (TUMOR, masks.scores_tumor)):
        total = np.count_nonzero(masks.truth.array >= lowest) if scored else 0
        inside = np.count_nonzero(masks.truth.array[masks.roi.slices] >= lowest) if masks.roi else 0
        shares.append(float(inside / total) if total else None)
    return shares[0], shares[1]


@dataclass(frozen=True)
class StageReport:
    """The accounts of some cases. A case seen in training flatters: take means of one kind of case (`by_kind`)."""

    accounts: tuple[StageAccount, ...]

    def mean(self, field: str) -> float | None:
        """Mean of a number of `StageAccount` over the cases where it is not None, all kinds; None without any."""
        values = [value for case in self.accounts if (value := getattr(case, field)) is not None]
        return fmean(values) if values else None

    def waterfall(self, structure: str) -> Waterfall | None:
        """Mean waterfall of `liver` or `tumor` over the cases that have one, all kinds; None without any."""
        return mean_waterfall([w for case in self.accounts if (w := getattr(case, structure)) is not None])

    @property
    def n_tumor_free(self) -> int:
        """Number of cases whose tumours are scored and whose truth has none; the empty rule decides these."""
        return sum(case.tumor is not None and not case.lesions for case in self.accounts)

    @property
    def lesions(self) -> tuple[LesionFate, ...]:
        """The true tumours of all cases."""
        return tuple(lesion for case in self.accounts for lesion in case.lesions)

    def by_kind(self) -> dict[str, StageReport]:
        """The cases apart by what is known of them, in this order: `held_out`, `in_training`, `unknown`."""
        kinds: Sequence[tuple[str, bool | None]] = (("held_out", True), ("in_training", False), ("unknown", None))
        groups = {name: tuple(case for case in self.accounts if case.held_out is value) for name, value in kinds}
        return {name: StageReport(accounts) for name, accounts in groups.items() if accounts}
