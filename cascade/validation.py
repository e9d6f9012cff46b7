"""A network's Dice on held-out prepared cases, on the stage's own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cascade.stages import Stage
from evaluate.overlap import dice
from preprocess.geometry import Grid, index3
from preprocess.preparation import Infer, Preparation
from preprocess.prepared import PreparedCase


@dataclass(frozen=True, eq=False)
class Picture:
    """One slice (y, x): the prepared image, the predicted classes and the true ones."""

    image: NDArray[np.float32]
    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Validation:
    """Dice by case and region; None where a region's label is not to be scored. LiTS convention: both empty is 1."""

    cases: Mapping[str, Mapping[str, float | None]]
    picture: Picture | None = None

    def mean(self, region: str) -> float | None:
        """Mean Dice of `region` over the cases that score it, None when there is none."""
        values = [score for row in self.cases.values() if (score := row.get(region)) is not None]
        return sum(values) / len(values) if values else None

    def means(self) -> dict[str, float | None]:
        """Mean Dice of every region."""
        regions = {region for row in self.cases.values() for region in row}
        return {f"{region}_dice": self.mean(region) for region in sorted(regions)}

    def table(self) -> list[dict[str, Any]]:
        """Rows for a report, without case names (they may identify a patient)."""
        return [dict(row) for row in self.cases.values()]

    @classmethod
    def joined(cls, parts: Sequence[Validation], names: Sequence[str]) -> Self:
        """The cases `names`, in this order, from `parts` that hold some of them each."""
        rows = {name: row for part in parts for name, row in part.cases.items()}
        pictures = [part.picture for part in parts if part.picture is not None]
        best = max(pictures, key=lambda picture: bool((picture.truth == 2).any()), default=None)
        return cls({name: rows[name] for name in names}, best)

    @classmethod
    def from_table(cls, rows: Sequence[Mapping[str, float | None]]) -> Self:
        """The inverse of `table`, with numbers for names."""
        return cls({str(number): row for number, row in enumerate(rows)})


def validate(stage: Stage, preparation: Preparation, cases: Sequence[PreparedCase], infer: Infer) -> Validation:
    """Predict every case on the stage's validation box and score it. A region implies the one before it."""
    rows: dict[str, dict[str, float | None]] = {}
    picture = None
    for case in cases:
        labels = case.labels(stage.name)
        box = stage.validation_box(labels, Grid(index3(labels.shape), preparation.spacing_mm))
        truth = np.asarray(labels[box.slices])
        image = np.asarray(case.image(stage.name)[box.slices], np.float32)
        inside = np.logical_or.accumulate(infer(image, None)[::-1] >= 0.5, axis=0)[::-1]
        rows[case.name] = {
            region: dice(inside[k], truth > k) if region != "tumor" or case.scores_tumor else None
            for k, region in enumerate(stage.regions)
        }
        if picture is None or (truth == 2).any() > (picture.truth == 2).any():
            z = int((truth == truth.max()).sum(axis=(1, 2)).argmax())
            picture = Picture(image[z], inside[:, z].sum(axis=0).astype(np.uint8), truth[z])
    return Validation(rows, picture)
