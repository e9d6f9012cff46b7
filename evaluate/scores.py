"""The score of one case: what two label maps say of the liver, of the tumours, and of each lesion.

Liver = label >= 1 (tumours are liver), tumour = label == 2, as in LiTS (Bilic et al., Medical Image Analysis 84,
102680, 2023). Unlike the challenge's scorer, this one checks that both masks lie at one place in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluate.conventions import Convention
from evaluate.lesions import LesionMatch, match_lesions
from evaluate.metrics import MaskScore, mask_score
from evaluate.overlap import Overlap, overlap
from evaluate.placing import beyond_mm, placed_on
from preprocess.errors import InputError
from preprocess.geometry import Box, Grid, Index, index3, triple
from preprocess.volume import LIVER, TUMOR, LabelMap

#: Corners of a prediction and its truth may lie this far apart: headers round, but no voxel is this small.
TOLERANCE_MM = 0.1


@dataclass(frozen=True)
class CaseScore:
    """One case's prediction against its truth, by the named `convention`.

    `liver` and `tumor` hold the metrics of the whole class masks, `lesions` those of each lesion; the overlaps are the
    voxel counts behind them, which a cohort pools. `tumor` and `lesions` are None when the truth holds no usable
    tumours (they were not drawn, or are merged into the liver): those are never scored. `voxel_ml` is the volume of a
    voxel. `patient` says whose scan it is: the bootstrap keeps the scans of a patient together.
    """

    case: str
    patient: str
    convention: Convention
    voxel_ml: float
    liver_overlap: Overlap
    tumor_overlap: Overlap
    liver: MaskScore
    tumor: MaskScore | None
    lesions: LesionMatch | None

    @property
    def scores_tumor(self) -> bool:
        """Whether the tumours are scored."""
        return self.tumor is not None

    @property
    def liver_dice(self) -> float | None:
        """Dice of the liver with its tumours, 0 to 1; None when the convention leaves the case out."""
        return self.liver.dice

    @property
    def tumor_dice(self) -> float | None:
        """Dice of the tumours, 0 to 1; None when not scored or when the convention leaves the case out."""
        return self.tumor.dice if self.tumor else None

    @property
    def liver_ml(self) -> float:
        """Predicted volume of the liver with its tumours in mL."""
        return self.liver_overlap.prediction * self.voxel_ml

    @property
    def liver_ml_truth(self) -> float:
        """True volume of the liver with its tumours in mL."""
        return self.liver_overlap.truth * self.voxel_ml

    @property
    def tumor_ml(self) -> float:
        """Predicted volume of the tumours in mL."""
        return self.tumor_overlap.prediction * self.voxel_ml

    @property
    def tumor_ml_truth(self) -> float | None:
        """True volume of the tumours in mL; None when not scored."""
        return self.tumor_overlap.truth * self.voxel_ml if self.scores_tumor else None

    @property
    def tumor_burden(self) -> float:
        """Predicted share of the liver (label >= 1) that is tumour, 0 to 1; 0 without a liver."""
        return _share(self.tumor_overlap.prediction, self.liver_overlap.prediction)

    @property
    def tumor_burden_truth(self) -> float | None:
        """True share of the liver (label >= 1) that is tumour, 0 to 1; 0 without a liver; None when not scored."""
        return _share(self.tumor_overlap.truth, self.liver_overlap.truth) if self.scores_tumor else None


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def score(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: Sequence[float],
    *,
    case: str = "",
    convention: Convention = "lits",
    scores_tumor: bool = True,
) -> CaseScore:
    """Score two label arrays (z, y, x) of one shape with classes 0, 1 and 2; `spacing_mm` is (z, y, x).

    For a notebook; files, whose voxels have a place in space, go through `score_labels`. With `scores_tumor` False only
    the liver is scored. Raises ValueError for arrays that are not 3D or hold other classes, for a spacing that is not
    three positive numbers or a convention that is not known; InputError for two shapes.
    """
    if len(spacing_mm) != 3:
        raise ValueError(f"spacing {tuple(spacing_mm)} is not three numbers (z, y, x) in mm")
    labels = [LabelMap(_classes(a), Grid(_shape(a), triple(spacing_mm))) for a in map(np.asarray, (prediction, truth))]
    return score_labels(*labels, case=case, convention=convention, scores_tumor=scores_tumor)


def _shape(array: NDArray[Any]) -> Index:
    if array.ndim != 3:
        raise ValueError(f"labels of shape {array.shape} are not 3D (z, y, x)")
    return index3(array.shape)


def _classes(array: NDArray[Any]) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):  # NaN becomes some class, and is found out by the comparison
        classes = array.astype(np.uint8, copy=False)
    changed = array.dtype != np.uint8 and not np.array_equal(classes, array)
    if changed or (array.size and classes.max() > TUMOR):
        raise ValueError(f"labels must be 0, 1 or 2; found {array.min()} to {array.max()} of type {array.dtype}")
    return classes


def score_labels(
    prediction: LabelMap,
    truth: LabelMap,
    *,
    case: str = "",
    convention: Convention = "lits",
    scores_tumor: bool = True,
    resample_truth: bool = False,
) -> CaseScore:
    """Score a prediction against the truth, voxel by voxel in space: the two may be stored in different orientations.

    With `resample_truth` a truth on another grid is brought onto the prediction's, the one that a user gets, by
    `evaluate.placing.placed_on`; InputError is raised when its liver reaches beyond that (see `beyond_mm`), which would
    go unseen. Without, InputError is raised when the grids disagree: another shape, or corners more
    than `TOLERANCE_MM` apart, which covers origin, spacing and direction. `patient` is set to `case`.
    """
    prediction, truth = (labels.reoriented(labels.grid.canonical()) for labels in (prediction, truth))
    where = f"case {case}: " if case else ""
    if resample_truth and not prediction.grid.mismatch_mm(truth.grid) <= TOLERANCE_MM:
        if (beyond := beyond_mm(truth, prediction.grid)) > 0:
            raise InputError(
                f"{where}the true liver reaches {beyond:.3g} mm beyond the prediction, where nothing can be scored; "
                "give a prediction of the whole scan, or the truth of this one"
            )
        truth = placed_on(truth, prediction.grid)
    _refuse_mismatch(prediction.grid, truth.grid, where)
    pair = _cropped(prediction, truth)
    spacing_mm = pair[0].grid.spacing_mm
    livers, tumors = [p.array >= LIVER for p in pair], [p.array == TUMOR for p in pair]
    liver, tumor = overlap(*livers), overlap(*tumors)
    return CaseScore(
        case=case,
        patient=case,
        convention=convention,
        voxel_ml=truth.grid.voxel_ml,
        liver_overlap=liver,
        tumor_overlap=tumor,
        liver=mask_score(livers[0], livers[1], spacing_mm, liver, convention),
        tumor=mask_score(tumors[0], tumors[1], spacing_mm, tumor, convention) if scores_tumor else None,
        lesions=match_lesions(tumors[0], tumors[1], pair[0].grid, convention) if scores_tumor else None,
    )


def _cropped(prediction: LabelMap, truth: LabelMap) -> tuple[LabelMap, LabelMap]:
    """Both, cut to a box around all classes of either: a scan of 600 slices needs no mask of its whole size."""
    boxes = [box for labels in (prediction, truth) if (box := Box.around(labels.array))]
    if not boxes:
        return prediction.cropped(Box((0, 0, 0), (1, 1, 1))), truth.cropped(Box((0, 0, 0), (1, 1, 1)))
    box = Box(
        index3([min(ends) for ends in zip(*(box.start for box in boxes), strict=True)]),
        index3([max(ends) for ends in zip(*(box.stop for box in boxes), strict=True)]),
    )
    return prediction.cropped(box), truth.cropped(box)


def _refuse_mismatch(prediction: Grid, truth: Grid, name: str) -> None:
    if prediction.shape != truth.shape:
        sizes = " and ".join(" x ".join(map(str, grid.shape)) for grid in (prediction, truth))
        raise InputError(
            f"{name}prediction and truth have {sizes} voxels (z, y, x); "
            "give two masks of one scan, or use --resample-truth"
        )
    distance = prediction.mismatch_mm(truth)
    if distance > TOLERANCE_MM:
        raise InputError(
            f"{name}prediction and truth lie {distance:.2f} mm apart at a corner (limit {TOLERANCE_MM} mm); "
            "give two masks of one scan, mend the header that is wrong, or use --resample-truth"
        )
