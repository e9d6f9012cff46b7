"""Lesion detection: how many true lesions are found, how many predicted ones are true, in all and by size.

Both sides are counted by themselves, so every lesion counts exactly once whatever splits and merges there are: recall
is of the true lesions, precision of the predicted ones, and F1 their harmonic mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluate.lesions import LesionMatch, sphere_diameter_mm
from evaluate.overlap import Mask
from preprocess.components import components

#: The thresholds of LiTS that an IoU must exceed, by the name used in files.
IOU_ABOVE: Mapping[str, float] = {"iou0": 0.0, "iou50": 0.5}

#: The size classes of LiTS by diameter in mm, as named in files; exactly 10 and 20 mm are `10-20`.
SIZES = ("<10", "10-20", ">20")


def size_class(diameter_mm: float) -> str:
    """Which of `SIZES` a diameter in mm belongs to."""
    return SIZES[0] if diameter_mm < 10 else SIZES[1] if diameter_mm <= 20 else SIZES[2]


@dataclass(frozen=True)
class Detection:
    """Counts of lesions: the true ones and those of them detected, the predicted ones and those of them correct.

    Sums pool cases.
    """

    truth: int = 0
    detected: int = 0
    predicted: int = 0
    correct: int = 0

    def __add__(self, other: Detection) -> Detection:
        return Detection(
            self.truth + other.truth,
            self.detected + other.detected,
            self.predicted + other.predicted,
            self.correct + other.correct,
        )

    @property
    def missed(self) -> int:
        """True lesions that are not detected."""
        return self.truth - self.detected

    @property
    def false(self) -> int:
        """Predicted lesions that detect nothing."""
        return self.predicted - self.correct

    @property
    def recall(self) -> float | None:
        """Share of the true lesions that are detected; None without a true lesion."""
        return self.detected / self.truth if self.truth else None

    @property
    def precision(self) -> float | None:
        """Share of the predicted lesions that are correct; None without a predicted lesion."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 0 when one is 0.

        None without any lesion, and when one has no value and the other is above 0: of one size, a lesion may be
        found by one of another size.
        """
        precision, recall = self.precision, self.recall
        if precision and recall:
            return 2 * precision * recall / (precision + recall)
        return None if precision or recall or (precision is None and recall is None) else 0.0


def detection(match: LesionMatch, above: float, size: str | None = None) -> Detection:
    """The counts of one case at an IoU strictly greater than `above`, of all lesions or of one of `SIZES`.

    A lesion's own diameter decides its size class: a true lesion's for recall, a predicted one's for precision.
    """
    truth, predicted = (
        [lesion for lesion in side if size is None or size_class(lesion.diameter_mm) == size]
        for side in (match.truth, match.prediction)
    )
    return Detection(
        truth=len(truth),
        detected=sum(match.detected(lesion, above) for lesion in truth),
        predicted=len(predicted),
        correct=sum(match.detected(lesion, above) for lesion in predicted),
    )


def touched(prediction: Mask, truth: Mask, voxel_ml: float) -> dict[str, Detection]:
    """The counts of one case at an IoU above 0 for each of `SIZES`, from two boolean tumour masks (z, y, x).

    They are those of `detection`, without the surfaces that matching measures: above 0 it is enough to touch.
    """
    counts = dict.fromkeys(SIZES, Detection())
    for mask, other, is_truth in ((truth, prediction, True), (prediction, truth, False)):
        numbered, sizes = components(mask)
        hit = np.bincount(numbered[mask & other], minlength=len(sizes)) > 0
        for size, found in zip(sizes[1:].tolist(), hit[1:].tolist(), strict=True):
            one = Detection(1, int(found)) if is_truth else Detection(predicted=1, correct=int(found))
            counts[size_class(sphere_diameter_mm(size * voxel_ml))] += one
    return counts
