"""Distances between the slices of a stack: even; uneven (interpolated with a word); with slices missing (refused)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError

#: Most that a slice may lie off the even lattice along the normal, in parts of a step: positions are often rounded to
#: 0.1 mm, and a missing slice is off by a whole step.
STEP_TOLERANCE, LEAST_TOLERANCE_MM = 0.1, 0.01

#: Up to so many steps in a row that are all so much longer than those on both sides are gaps: something was there and
#: is not. A longer row is how the scan was made. Half as long again, less what rounded positions take.
GAP_RATIO, GAP_STEPS = 1.45, 5

#: Slices further apart than this are not interpolated between: a lesion fits in.
WIDEST_STEP_MM = 10.0


def even_step(folder: Path, heights: NDArray[np.float64]) -> float | None:
    """Millimetres between evenly spaced slices at `heights` (sorted, from 0); None when they are uneven.

    Raises InputError that names the places when slices are missing or too far apart.
    """
    step = float(heights[-1]) / (len(heights) - 1)
    off = np.abs(heights - step * np.arange(len(heights)))
    if off.max() <= max(STEP_TOLERANCE * step, LEAST_TOLERANCE_MM):
        return step
    steps = np.diff(heights)
    gaps = _gaps(steps)
    if gaps.size or steps.max() > WIDEST_STEP_MM:
        at = gaps if gaps.size else np.flatnonzero(steps > WIDEST_STEP_MM)
        places = ", ".join(f"{heights[i]:.1f} to {heights[i + 1]:.1f}" for i in at[:5]) + (
            ", ..." if len(at) > 5 else ""
        )
        raise InputError(
            f"{folder}: slices are {steps.min():.4g} to {steps.max():.4g} mm apart, with gaps at {places} mm above "
            "the lowest; restore the missing slices"
        )
    return None


def _gaps(steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which of `steps` are gaps (see `GAP_RATIO`). At an end of the scan, with one side to compare, a single one is."""
    padded, found = np.concatenate([[0.0], steps, [0.0]]), set[int]()
    for first in range(1, len(steps) + 1):
        for last in range(first, min(first + GAP_STEPS, len(steps) + 1)):
            inner = first > 1 and last < len(steps)
            sides = max(padded[first - 1], padded[last + 1])
            if (inner or first == last) and padded[first : last + 1].min() >= GAP_RATIO * sides:
                found.update(range(first - 1, last))
    return np.array(sorted(found), np.int64)


def evened(
    folder: Path, array: NDArray[Any], heights: NDArray[np.float64], *, classes: bool = False
) -> tuple[NDArray[Any], float, tuple[str, ...]]:
    """`array` (z, y, x) with slices at `heights`, interpolated linearly to even steps; the step in mm; a warning.

    The step is the median one, so that most slices stay nearly as they are. int16 stays int16. Of `classes` each slice
    is the nearest one: between 0 and 2 there is no 1.
    """
    steps = np.diff(heights)
    count = round(float(heights[-1] / np.median(steps))) + 1
    if count > 4 * len(heights):
        raise InputError(f"{folder}: slices are {steps.min():.4g} to {steps.max():.4g} mm apart; resample evenly")
    step = float(heights[-1]) / (count - 1)
    out = np.empty((count, *array.shape[1:]), array.dtype)
    for z, height in enumerate(step * np.arange(count)):
        below = min(int(np.searchsorted(heights, height, "right")) - 1, len(steps) - 1)
        share = (height - heights[below]) / steps[below]
        share = round(share) if classes else share
        plane = array[below] * (1 - share) + array[below + 1] * share
        out[z] = np.rint(plane) if out.dtype.kind == "i" else plane
    warning = (
        f"slices are {steps.min():.4g} to {steps.max():.4g} mm apart; interpolated to {count} slices every {step:.4g} "
        "mm, where the mask lies too"
    )
    return out, step, (warning,)
