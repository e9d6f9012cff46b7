"""What one case would score under every combination of stage 2's thresholds, from one run of both networks.

The probabilities inside the region of interest are kept as the number of thresholds that they reach, one byte a voxel:
that needs little memory and is exact, so each number is that of the mask which `cascade.merge` makes with that policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.merge import (
    Mask,
    credible_liver,
    final_liver,
    liver_alone,
    pool_factor,
    pooled_threshold,
    probabilities,
)
from cascade.pipeline import LiverStage, TumorStage, policy_for, refine
from evaluate.overlap import Overlap
from preprocess.cases import Case
from preprocess.components import components
from preprocess.geometry import Box, Index, index3
from preprocess.lesions import AROUND_MM
from preprocess.outlines import Seen, outlined
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume
from stage1_liver.predict import find_liver
from stage2_tumor.gallbladder import CALLED
from stage2_tumor.recipe import TumorPolicy
from stage2_tumor.visibility import faint_and_clear

#: A place in the tables: of liver_threshold, tumor_threshold, tumor_peak and minimum_lesion_mm3.
Place = tuple[int, int, int, int]
#: What the tumour tables hold, in this order.
DICE, FALSE, FOUND = range(3)

Table = NDArray[np.float64]
_Levels = NDArray[np.uint8]
_Count = int | np.integer[Any]


@dataclass(frozen=True)
class Candidates:
    """The values that are tried of each threshold of a `TumorPolicy`, ascending."""

    liver_threshold: tuple[float, ...]
    tumor_threshold: tuple[float, ...]
    tumor_peak: tuple[float, ...]
    minimum_lesion_mm3: tuple[float, ...]

    @property
    def shape(self) -> Place:
        """How many values are tried of each."""
        liver, tumor, peak, minimum = (len(getattr(self, field.name)) for field in fields(self))
        return liver, tumor, peak, minimum

    def including(self, policy: TumorPolicy) -> Candidates:
        """These and the values of `policy`, so that it can be compared with what is chosen."""
        values = {field.name: (*getattr(self, field.name), getattr(policy, field.name)) for field in fields(self)}
        return Candidates(**{name: tuple(sorted(set(tried))) for name, tried in values.items()})

    def place(self, policy: TumorPolicy) -> Place:
        """Where `policy` stands. Raises ValueError when one of its values is not tried."""
        liver, tumor, peak, minimum = (getattr(self, f.name).index(getattr(policy, f.name)) for f in fields(self))
        return liver, tumor, peak, minimum

    def policy(self, place: Place, present: TumorPolicy) -> TumorPolicy:
        """The policy at `place`; what is not tried is as in `present`."""
        liver, tumor, peak, minimum = (getattr(self, f.name)[i] for f, i in zip(fields(self), place, strict=True))
        # Every voxel of a lesion reaches the threshold: a lower peak means the same.
        return replace(
            present,
            liver_threshold=liver,
            tumor_threshold=tumor,
            tumor_peak=max(peak, tumor),
            minimum_lesion_mm3=minimum,
        )


#: From one value to the next the masks change by about as much.
CANDIDATES = Candidates(
    liver_threshold=(0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
    tumor_threshold=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    tumor_peak=(0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98),
    minimum_lesion_mm3=(10.0, 25.0, 50.0, 100.0, 200.0),
)


@dataclass(frozen=True, eq=False)
class CaseTables:
    """What one case scores at each place.

    `liver` (liver thresholds): Dice of the final liver. `tumors` (3, all four): Dice of the final tumours, predicted
    lesions that touch no true one, and true lesions (of `lesions` in all) that are touched; None when the tumours are
    not labelled. Dice by the convention `lits`: both empty is 1.
    """

    case: str
    patient: str
    liver: Table
    tumors: Table | None
    lesions: int


def sweep(
    case: Case, volume: Volume, truth: LabelMap, stages: tuple[LiverStage, TumorStage], candidates: Candidates
) -> CaseTables:
    """The tables of one case, whose `volume` and `truth` lie on one grid. Runs each network once."""
    seen = _Seen.of(volume, stages, candidates)
    lesions = _TrueLesions(truth, seen.box if seen else None)
    true_liver = np.count_nonzero(truth.array)
    minimum_ml = policy_for(volume.grid, stages[0]).minimum_ml
    liver, tumors = np.full(candidates.shape[0], _dice(0, 0, true_liver)), np.zeros((3, *candidates.shape))
    tumors[DICE] = _dice(0, 0, lesions.voxels)
    if seen is not None:
        part = truth.array[seen.box.slices] >= LIVER
        minima = [mm3 / (1000 * volume.grid.voxel_ml) for mm3 in candidates.minimum_lesion_mm3]
        for place in range(candidates.shape[0]):
            whole = seen.credible_liver(seen.liver > place)
            mask = final_liver(whole)
            size = np.count_nonzero(mask)
            if size * volume.grid.voxel_ml < minimum_ml:
                continue  # counts as not found
            liver[place] = _dice(np.count_nonzero(mask & part), size, true_liver)
            for threshold in range(candidates.shape[1]) if case.scores_tumor else ():
                credible = seen.credible(whole[seen.spot], threshold)
                tumors[:, place, threshold] = _tumor_tables(seen, mask, (threshold, credible), minima, lesions)
    return CaseTables(case.name, case.patient, liver, tumors if case.scores_tumor else None, lesions.count)


@dataclass(frozen=True, eq=False)
class _Seen:
    """The region of interest and, in it, how many liver thresholds, tumour thresholds and peaks are reached.

    `possible` is where a lesion may reach, `called` where the gallbladder may be, `roi` the scan. `tumor`, `peak` and
    `likely` (enough for a clear lesion) are cut to `spot`, the part of the region that is tumour at the lowest
    threshold, and its surroundings. `policy` has what is not tried.
    """

    box: Box
    liver: _Levels
    spot: tuple[slice, slice, slice]
    tumor: _Levels
    peak: _Levels
    peaks: int
    likely: Mask
    possible: Mask
    called: Mask
    roi: Volume
    policy: TumorPolicy

    def credible_liver(self, liver: Mask) -> Mask:
        """`liver` as `cascade.merge.credible` leaves it."""
        return credible_liver(liver, self.possible, self.called, self.roi, self.policy)[0]

    def credible(self, liver: Mask, threshold: int) -> _Levels:
        """How many peaks are reached in `spot`, for tumours at a threshold as `cascade.merge.credible` has it."""
        hu, spacing_mm = self.roi.array[self.spot], self.roi.grid.spacing_mm
        faint, clear = faint_and_clear(self.tumor > threshold, liver, hu, spacing_mm, self.policy)
        return np.where(self.likely & clear, np.uint8(self.peaks), self.peak * ~faint)

    def drawn(self, parts: NDArray[np.int32], wanted: Mask, liver: Mask) -> NDArray[np.int32]:
        """The numbered `parts` as `cascade.merge.clean_up` draws those that are `wanted`; `liver` is cut to `spot`."""
        if not self.policy.outline_share:
            return parts
        hu, spacing_mm = self.roi.array[self.spot], self.roi.grid.spacing_mm
        seen = Seen(self.possible[self.spot] & liver, liver & (parts == 0), hu, spacing_mm)
        return outlined(parts, wanted, seen, self.policy.outline_share)

    @staticmethod
    def of(volume: Volume, stages: tuple[LiverStage, TumorStage], candidates: Candidates) -> _Seen | None:
        """What the networks say; None where stage 1 finds no liver (see `cascade.pipeline.segment`)."""
        liver, tumor = stages
        coarse = find_liver(volume, liver.infer, liver.preparation, policy_for(volume.grid, liver))
        if not coarse.found or volume.array.min() == volume.array.max():
            return None
        box = coarse.roi(volume.grid, liver.policy.margin_mm)
        rough = liver_alone(coarse, volume.grid, box, liver.policy.threshold)
        roi = volume.cropped(box)
        fine = refine(roi, rough.liver, tumor)
        weight = tumor.policy.stage2_weight
        of_liver, of_tumor, of_peak = (np.empty(box.shape, np.uint8) for _ in range(3))
        likely, possible, called = (np.empty(box.shape, bool) for _ in range(3))
        for z, (p1, p2, p_tumor) in enumerate(probabilities(coarse, fine, volume.grid, box)):
            of_liver[z] = _reached(pool_factor(p1, weight) * p2, candidates.liver_threshold, weight)
            of_tumor[z] = _reached(p1 * p_tumor, candidates.tumor_threshold)
            of_peak[z] = _reached(p1 * p_tumor, candidates.tumor_peak)
            likely[z] = p1 * p_tumor >= tumor.policy.clear_peak**2
            possible[z] = p1 * p_tumor >= tumor.policy.outline_threshold**2
            called[z] = p1 * p_tumor >= CALLED**2
        spot = (Box.around(of_tumor) or Box((0, 0, 0), (1, 1, 1))).grown(AROUND_MM[1], roi.grid).slices
        return _Seen(
            box,
            of_liver,
            spot,
            of_tumor[spot].copy(),
            of_peak[spot].copy(),
            len(candidates.tumor_peak),
            likely[spot].copy(),
            possible,
            called,
            roi,
            tumor.policy,
        )


class _TrueLesions:
    """The true lesions of a case: how many, of how many voxels, and their numbers inside `box` (z, y, x)."""

    def __init__(self, truth: LabelMap, box: Box | None) -> None:
        around = Box.around(truth.array == TUMOR)
        self.count = self.voxels = 0
        self.numbers = np.zeros(box.shape if box else (1, 1, 1), np.int32)
        if around is None:
            return
        # Numbered in the whole scan: the border of the region of interest must not make two lesions of one.
        numbered, sizes = components(truth.array[around.slices] == TUMOR)
        self.count, self.voxels = len(sizes) - 1, int(sizes[1:].sum())
        if box and (both := _shared(around, box)):
            self.numbers[_within(both, box)] = numbered[_within(both, around)]


def _shared(one: Box, other: Box) -> Box | None:
    start: Index = index3([max(pair) for pair in zip(one.start, other.start, strict=True)])
    stop: Index = index3([min(pair) for pair in zip(one.stop, other.stop, strict=True)])
    return Box(start, stop) if all(a < b for a, b in zip(start, stop, strict=True)) else None


def _within(part: Box, whole: Box) -> tuple[slice, ...]:
    return tuple(slice(a - o, b - o) for a, b, o in zip(part.start, part.stop, whole.start, strict=True))


def _reached(product: NDArray[np.float32], thresholds: Sequence[float], weight: float = 0.5) -> NDArray[np.intp]:
    """How many of `thresholds` the geometric mean reaches, exactly as `fuse` compares."""
    least = np.array([pooled_threshold(threshold, weight) for threshold in thresholds], np.float32)
    return np.searchsorted(least, product, side="right")


def _tumor_tables(
    seen: _Seen, liver: Mask, at_threshold: tuple[int, _Levels], minimum_voxels: Sequence[float], lesions: _TrueLesions
) -> Table:
    """(3, peaks, minima) for the tumours inside `liver` at one threshold: the parts are found once for all of them.

    `at_threshold` is its number, and how many peaks are reached where tumours may count.
    """
    threshold, credible = at_threshold
    numbered, sizes = components((seen.tumor > threshold) & liver[seen.spot])
    at = numbered > 0
    peak = np.zeros(len(sizes), np.uint8)
    np.maximum.at(peak, numbered[at], credible[at])
    numbered = seen.drawn(numbered, peak > 0, liver[seen.spot])
    at = numbered > 0
    part, true = numbered[at], lesions.numbers[seen.spot][at]
    sizes = np.bincount(part, minlength=len(sizes))
    right = np.bincount(part[true > 0], minlength=len(sizes))
    touches = np.unique(np.stack([part, true])[:, true > 0], axis=1)
    out = np.empty((3, seen.peaks, len(minimum_voxels)))
    for p in range(seen.peaks):
        for m, minimum in enumerate(minimum_voxels):
            keep = (peak > p) & (sizes >= minimum - 1e-6) & (sizes > 0)
            found = len(np.unique(touches[1, keep[touches[0]]]))
            out[:, p, m] = (
                _dice(right[keep].sum(), sizes[keep].sum(), lesions.voxels),
                np.count_nonzero(keep & (right == 0)),
                found,
            )
    return out


def _dice(both: _Count, predicted: _Count, true: _Count) -> float:
    return Overlap(int(both), int(predicted), int(true)).dice()
