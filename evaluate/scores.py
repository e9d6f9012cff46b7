"""The score of one case and of a cohort, by the rules of LiTS.

Bilic et al., "The Liver Tumor Segmentation Benchmark (LiTS)", Medical Image Analysis 84, 102680, 2023: liver =
label >= 1, tumour = label == 2, both empty scores 1. Unlike the challenge's scorer, this one checks that both masks lie
at one place in space. Surface and lesion metrics belong beside this file, one module each, and join `CaseScore`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from evaluate.overlap import Overlap, class_overlaps
from preprocess.errors import InputError
from preprocess.volume import LabelMap

#: Corners of a prediction and its truth may lie this far apart: headers round, but no voxel is this small.
TOLERANCE_MM = 0.1

#: The Dice of an empty prediction of an empty truth in the convention `lits`.
_LITS_EMPTY = 1.0


@dataclass(frozen=True)
class CaseScore:
    """Overlap of one case's prediction with its truth, and all that follows from it.

    `voxel_ml` is the volume of a voxel of the truth. With `scores_tumor` False the truth holds no usable tumours (they
    were not drawn, or are merged into the liver): Dice and true volume of the tumours are None, never a number.
    """

    case: str
    liver: Overlap
    tumor: Overlap
    voxel_ml: float
    scores_tumor: bool = True

    @property
    def liver_dice(self) -> float:
        """Dice of the liver with its tumours, 0 to 1; 1 when prediction and truth are both empty."""
        return self.liver.dice(empty=_LITS_EMPTY)

    @property
    def tumor_dice(self) -> float | None:
        """Dice of the tumours, 0 to 1; 1 when prediction and truth are both empty; None when not scored."""
        return self.tumor.dice(empty=_LITS_EMPTY) if self.scores_tumor else None

    @property
    def liver_ml(self) -> float:
        """Predicted volume of the liver with its tumours in mL."""
        return self.liver.prediction * self.voxel_ml

    @property
    def liver_ml_truth(self) -> float:
        """True volume of the liver with its tumours in mL."""
        return self.liver.truth * self.voxel_ml

    @property
    def tumor_ml(self) -> float:
        """Predicted volume of the tumours in mL."""
        return self.tumor.prediction * self.voxel_ml

    @property
    def tumor_ml_truth(self) -> float | None:
        """True volume of the tumours in mL; None when not scored."""
        return self.tumor.truth * self.voxel_ml if self.scores_tumor else None


def score(prediction: LabelMap, truth: LabelMap, *, case: str = "", scores_tumor: bool = True) -> CaseScore:
    """Score a prediction against the truth, voxel by voxel in space: the two may be stored in different orientations.

    Raises InputError when the grids disagree: another shape, or corners more than `TOLERANCE_MM` apart.
    """
    prediction, truth = (labels.reoriented(labels.grid.canonical()) for labels in (prediction, truth))
    name = f"case {case}: " if case else ""
    if prediction.grid.shape != truth.grid.shape:
        sizes = " and ".join(" x ".join(map(str, labels.grid.shape)) for labels in (prediction, truth))
        raise InputError(f"{name}prediction and truth have {sizes} voxels (z, y, x); give two masks of one scan")
    distance = prediction.grid.mismatch_mm(truth.grid)
    if distance > TOLERANCE_MM:
        raise InputError(
            f"{name}prediction and truth lie {distance:.2f} mm apart at a corner (limit {TOLERANCE_MM} mm); "
            "give two masks of one scan, or mend the header that is wrong"
        )
    liver, tumor = class_overlaps(prediction.array, truth.array)
    return CaseScore(case, liver, tumor, truth.grid.voxel_ml, scores_tumor)


@dataclass(frozen=True)
class CohortScore:
    """The scores of some cases and their summary: the mean over cases, and the Dice of all voxels pooled.

    `convention` names the rule for empty masks; it belongs into every report, as it alone can move the mean tumour Dice
    of LiTS by 0.10. Raises ValueError for no case.
    """

    cases: tuple[CaseScore, ...]
    convention: Literal["lits"] = "lits"

    def __post_init__(self) -> None:
        if not self.cases:
            raise ValueError("a cohort needs at least one case")

    @property
    def n(self) -> int:
        """Number of cases."""
        return len(self.cases)

    @property
    def tumor_cases(self) -> tuple[CaseScore, ...]:
        """The cases whose tumours are scored."""
        return tuple(case for case in self.cases if case.scores_tumor)

    @property
    def n_tumor_free(self) -> int:
        """Number of cases whose tumours are scored and whose truth has none; the empty rule decides these."""
        return sum(case.tumor.truth == 0 for case in self.tumor_cases)

    @property
    def liver_dice_mean(self) -> float:
        """Mean over cases of the liver Dice ("Dice per case")."""
        return fmean(case.liver_dice for case in self.cases)

    @property
    def tumor_dice_mean(self) -> float | None:
        """Mean of the tumour Dice over the cases where it is scored; None when there is none."""
        scored = [case.tumor_dice for case in self.cases if case.tumor_dice is not None]
        return fmean(scored) if scored else None

    @property
    def liver_dice_global(self) -> float:
        """Liver Dice of the voxels of all cases pooled ("Dice global")."""
        return sum((case.liver for case in self.cases), Overlap()).dice(empty=_LITS_EMPTY)

    @property
    def tumor_dice_global(self) -> float | None:
        """Tumour Dice of the pooled voxels of the cases where it is scored; None when there is none."""
        if not self.tumor_cases:
            return None
        return sum((case.tumor for case in self.tumor_cases), Overlap()).dice(empty=_LITS_EMPTY)
