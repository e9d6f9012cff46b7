"""What a plan is made from: HU inside liver and tumours, and how large the tumours are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.components import components
from preprocess.geometry import Box
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume

#: Percentiles of HU that are kept: nearly the lowest, the middle, nearly the highest.
PERCENTILES = (0.5, 50.0, 99.5)


@dataclass(frozen=True)
class Measures:
    """HU at `PERCENTILES` inside the liver without tumours and inside tumours, empty where there is none.

    `lesion_mm` are the tumours' diameters, those of balls of the same volume, largest first.
    """

    liver_hu: tuple[float, ...]
    tumor_hu: tuple[float, ...]
    lesion_mm: tuple[float, ...]


def measure(volume: Volume, labels: LabelMap, *, tumors: bool) -> Measures:
    """Measures of one case; `tumors`: they were drawn, else nothing is said of them. Both images share a grid."""
    box = Box.around(labels.array)
    if box is None:
        return Measures((), (), ())
    hu, classes = volume.array[box.slices], labels.array[box.slices]
    liver = _percentiles(hu[classes == LIVER])
    if not tumors:
        return Measures(liver, (), ())
    ml = np.sort(components(classes == TUMOR)[1][1:])[::-1] * labels.grid.voxel_ml
    lesion_mm = tuple(round(2 * float(1000 * v * 3 / (4 * np.pi)) ** (1 / 3), 2) for v in ml)
    return Measures(liver, _percentiles(hu[classes == TUMOR]), lesion_mm)


def measures_from(table: Mapping[str, Any]) -> Measures:
    """Measures from their JSON form."""
    return Measures(*(tuple(map(float, table[name])) for name in ("liver_hu", "tumor_hu", "lesion_mm")))


def widened(window_hu: tuple[float, float], cases: Sequence[Measures]) -> tuple[float, float]:
    """`window_hu`, made to hold 99 % of liver and tumour of the median case, in steps of 10 HU."""
    low, high = window_hu
    for each in ([case.liver_hu for case in cases], [case.tumor_hu for case in cases]):
        if measured := [hu for hu in each if hu]:
            lowest, _, highest = np.median(np.array(measured), axis=0)
            low = min(low, 10 * float(np.floor(lowest / 10)))
            high = max(high, 10 * float(np.ceil(highest / 10)))
    return low, high


def _percentiles(hu: NDArray[Any]) -> tuple[float, ...]:
    return tuple(round(float(v), 1) for v in np.percentile(hu, PERCENTILES)) if hu.size else ()
