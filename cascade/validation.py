"""A network's Dice and found lesions on held-out prepared cases, on the stage's own grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cascade.stages import Stage
from evaluate.detection import SIZES, Detection, touched
from evaluate.overlap import dice
from evaluate.text import number
from preprocess.geometry import Grid, index3
from preprocess.preparation import Infer, Preparation
from preprocess.prepared import PreparedCase
from preprocess.volume import TUMOR

#: The classes as the log names them.
CLASSES = ("background", "liver", "tumor")


@dataclass(frozen=True, eq=False)
class Picture:
    """One slice (y, x): the prepared image, the predicted classes and the true ones."""

    image: NDArray[np.float32]
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Validation:
    """Dice by case and region; None where a region's label is not to be scored. LiTS convention: both empty is 1.

    `lesions`: of the cases whose tumours are scored, how many are found, by size class (see `evaluate.detection`).
    `confusions`: of the cases all of whose regions are scored, voxels by true and predicted class; for the log, and
    not in `table`.
    """

    cases: Mapping[str, Mapping[str, float | None]]
    picture: Picture | None = None
    lesions: Mapping[str, Mapping[str, Detection]] = field(default_factory=dict)
    confusions: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def mean(self, region: str) -> float | None:
        """Mean Dice of `region` over the cases that score it, None when there is none."""
        values = [score for row in self.cases.values() if (score := row.get(region)) is not None]
        return sum(values) / len(values) if values else None

    def means(self) -> dict[str, float | None]:
        """Mean Dice of every region."""
        regions = {region for row in self.cases.values() for region in row}
        return {f"{region}_dice": self.mean(region) for region in sorted(regions)}

    def found(self) -> dict[str, Detection]:
        """The lesions of all cases together, by size class; empty when no tumours are scored."""
        counts = self.lesions.values()
        return {size: sum((case[size] for case in counts), Detection()) for size in SIZES} if counts else {}

    def confused(self) -> dict[str, float]:
        """Which share of each true class is taken for each other one, of all cases together: `liver_as_tumor`.

        Of stage 1, to which a tumour is liver, `tumor_as_background` is what it misses; stage 2 may still see that.
        """
        if not self.confusions:
            return {}
        total = np.sum(list(self.confusions.values()), axis=0)
        last = total.shape[1] - 1
        return {
            f"{true}_as_{CLASSES[m]}": float(total[k, m] / total[k].sum())
            for k, true in enumerate(CLASSES)
            for m in range(last + 1)
            if m != min(k, last) and total[k].any()
        }

    def text(self) -> str:
        """What it scores, in a line: mean Dice of each region and, where tumours are scored, the lesions."""
        means = {name.removesuffix("_dice"): mean for name, mean in self.means().items()}
        scores = [f"{region} {'not scored' if mean is None else number(mean)}" for region, mean in means.items()]
        if counts := self.found():
            total = sum(counts.values(), Detection())
            scores.append(f"{total.detected} of {total.truth} lesions found, {total.false} false")
        return ", ".join(scores)

    def table(self) -> list[dict[str, Any]]:
        """Rows for a report, without case names (they may identify a patient)."""
        lesions = {name: {size: asdict(n) for size, n in counts.items()} for name, counts in self.lesions.items()}
        return [{**row, "lesions": lesions[name]} if name in lesions else dict(row) for name, row in self.cases.items()]

    @classmethod
    def joined(cls, parts: Sequence[Validation], names: Sequence[str]) -> Self:
        """The cases `names`, in this order, from `parts` that hold some of them each."""
        rows = {name: row for part in parts for name, row in part.cases.items()}
        pictures = [part.picture for part in parts if part.picture is not None]
        best = max(pictures, key=lambda picture: bool((picture.truth == 2).any()), default=None)
        lesions = {name: counts for part in parts for name, counts in part.lesions.items()}
        confusions = {name: counts for part in parts for name, counts in part.confusions.items()}
        return cls(
            {name: rows[name] for name in names},
            best,
            {n: lesions[n] for n in names if n in lesions},
            {n: confusions[n] for n in names if n in confusions},
        )

    @classmethod
    def from_table(cls, rows: Sequence[Mapping[str, Any]]) -> Self:
        """The inverse of `table`, with numbers for names."""
        cases = {str(k): {region: v for region, v in row.items() if region != "lesions"} for k, row in enumerate(rows)}
        lesions = {
            str(k): {size: Detection(**counts) for size, counts in row["lesions"].items()}
            for k, row in enumerate(rows)
            if "lesions" in row
        }
        return cls(cases, lesions=lesions)


def validate(stage: Stage, preparation: Preparation, cases: Sequence[PreparedCase], infer: Infer) -> Validation:
    """Predict every case on the stage's validation box and score it. A region implies the one before it."""
    rows: dict[str, dict[str, float | None]] = {}
    lesions, confusions = {}, {}
    voxel_ml = math.prod(preparation.spacing_mm) / 1000
    picture = None
    for case in cases:
        labels = case.labels(stage.name)
        box = stage.validation_box(labels, Grid(index3(labels.shape), preparation.spacing_mm))
        truth = np.asarray(labels[box.slices])
        image = np.asarray(case.image(stage.name)[box.slices], np.float32)
        inside = np.logical_or.accumulate(infer(image, None)[::-1] >= 0.5, axis=0)[::-1]
        predicted = inside.sum(axis=0, dtype=np.uint8)
        rows[case.name] = {
            region: dice(inside[k], truth > k) if region != "tumor" or case.scores_tumor else None
            for k, region in enumerate(stage.regions)
        }
        if "tumor" in stage.regions and case.scores_tumor:
            lesions[case.name] = touched(inside[stage.regions.index("tumor")], truth == TUMOR, voxel_ml)
        if None not in rows[case.name].values():
            confusions[case.name] = _confusion(truth, predicted, len(stage.regions) + 1)
        if picture is None or (truth == 2).any() > (picture.truth == 2).any():
            z = int((truth == truth.max()).sum(axis=(1, 2)).argmax())
            picture = Picture(image[z], predicted[z], truth[z])
    return Validation(rows, picture, lesions, confusions)


def _confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Voxels (true class, predicted class): all true classes, and as many predicted ones as the stage tells apart."""
    pairs = truth * np.uint8(classes) + predicted
    return np.bincount(pairs.ravel(), minlength=len(CLASSES) * classes).reshape(len(CLASSES), classes)
