"""Both stages' probabilities to one mask: fuse on the scan's own grid, inside the region of interest, then clean up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.components import components, fill_holes, largest
from preprocess.edges import without_fat
from preprocess.geometry import Box, Grid
from preprocess.lesions import AROUND_MM
from preprocess.outlines import Seen, outlined
from preprocess.resample import FloatArray, slabs
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume
from stage1_liver.predict import CoarseLiver
from stage2_tumor.gallbladder import CALLED, gallbladder
from stage2_tumor.predict import RoiProbabilities
from stage2_tumor.recipe import TumorPolicy
from stage2_tumor.visibility import faint_and_clear

#: A second liver part of at least this share of the largest is worth a warning when it is dropped.
NOTABLE_SHARE = 0.1

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Fused:
    """`liver` and `tumor` (z, y, x) on `grid`, the region of interest of the scan's grid, before any clean-up.

    `tumor` may lie outside `liver`; `labels` holds only the tumour inside it. `agreement` is the Dice of both stages'
    livers before they were fused, None where there was one stage. `sure` is where tumour is certain enough for a lesion
    to count, None where every one does, and `likely` where it is for one that is clear to see, until that has been
    looked at (`credible`); `possible` is where one that counts may reach, None where it stays as it is; `called` is
    where the gallbladder may be, until that has been looked at, and `gallbladder` what was taken for it then.
    """

    liver: Mask
    tumor: Mask
    grid: Grid
    agreement: float | None = None
    sure: Mask | None = None
    likely: Mask | None = None
    possible: Mask | None = None
    called: Mask | None = None
    gallbladder: Mask | None = None

    @property
    def labels(self) -> LabelMap:
        """The classes 0/1/2 as they are before clean-up."""
        return _classes(self.liver, self.tumor, self.grid)


def fuse(coarse: CoarseLiver, fine: RoiProbabilities, full: Grid, box: Box, policy: TumorPolicy) -> Fused:
    """Liver and tumour from both stages' probabilities, on the part `box` of `full`.

    Each class has the geometric mean of what stage 2 says of it and what stage 1 says of the liver (a logarithmic
    opinion pool, Genest and Zidek, Statistical Science 1986): a stage that is sure of no liver is not outvoted, so what
    stage 2 makes of the stomach far from stage 1's liver does not count. For the liver, whose edge it sees better,
    stage 2 has the weight `policy.stage2_weight`; a tumour has to convince both alike. A tumour is liver, so for stage
    2 liver is at least as probable as tumour: where the network sees a tumour and forgets the liver around it, stage 1
    decides.
    """
    grid = full.cropped(box)
    liver, tumor, sure, likely, possible, called = (np.empty(grid.shape, bool) for _ in range(6))
    both = size = 0
    weight = policy.stage2_weight
    least = pooled_threshold(policy.liver_threshold, weight)
    for z, (p1, p2, p_tumor) in enumerate(probabilities(coarse, fine, full, box)):
        liver[z] = pool_factor(p1, weight) * p2 >= least
        tumor[z] = p1 * p_tumor >= policy.tumor_threshold**2
        sure[z] = p1 * p_tumor >= policy.tumor_peak**2
        likely[z] = p1 * p_tumor >= policy.clear_peak**2
        possible[z] = p1 * p_tumor >= policy.outline_threshold**2
        called[z] = p1 * p_tumor >= CALLED**2
        one, two = p1 >= policy.liver_threshold, p2 >= policy.liver_threshold
        both += int(np.count_nonzero(one & two))
        size += int(np.count_nonzero(one) + np.count_nonzero(two))
    return Fused(liver, tumor, grid, 2 * both / max(1, size), sure, likely, possible, called)


def credible(fused: Fused, roi: Volume, policy: TumorPolicy) -> Fused:
    """What of `fused` the HU bear out: `roi` is the scan on its grid.

    The liver is without the fat at its edge (`preprocess.edges`) and without what was called tumour and is the
    gallbladder (`stage2_tumor.gallbladder`). `sure` is nothing of tumours that are too faint to be seen, and what is
    `likely` of those that are clear to see (`stage2_tumor.visibility`).
    """
    spared = fused.tumor if fused.possible is None else fused.possible
    liver, bile = credible_liver(fused.liver, spared, fused.called, roi, policy)
    fused = replace(fused, liver=liver, called=None, gallbladder=bile)
    box = Box.around(fused.tumor & fused.liver)
    if box is None or fused.sure is None or fused.likely is None:
        return fused
    part = box.grown(AROUND_MM[1], fused.grid).slices
    hu, spacing = roi.array[part], roi.grid.spacing_mm
    faint, clear = faint_and_clear(fused.tumor[part], fused.liver[part], hu, spacing, policy)
    sure = fused.sure.copy()
    sure[part] = (sure[part] & ~faint) | (fused.likely[part] & clear)
    return replace(fused, sure=sure, likely=None)


def credible_liver(
    liver: Mask, spared: Mask, called: Mask | None, roi: Volume, policy: TumorPolicy
) -> tuple[Mask, Mask]:
    """`liver` without the fat at its edge, but where it is `spared`, and without the gallbladder; and the latter.

    The gallbladder is sought where something is `called` tumour, None: nowhere.
    """
    hu, spacing_mm = roi.array, roi.grid.spacing_mm
    lean = without_fat(liver, spared, hu, spacing_mm, policy.fat_share)
    if called is None:
        return lean, np.zeros_like(lean)
    bile = gallbladder(called, lean, hu, spacing_mm, policy.gallbladder_hu)
    return lean & ~bile, bile


def probabilities(
    coarse: CoarseLiver, fine: RoiProbabilities, full: Grid, box: Box
) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Slice by slice of `box` what stage 1 says of the liver, stage 2 of the liver, and of tumours; each (y, x)."""
    grid = full.cropped(box)
    first = slabs(coarse.probability, coarse.grid, full, box)
    second = slabs(fine.liver, fine.grid, grid)
    third = slabs(fine.tumor, fine.grid, grid)
    for p1, p2, p_tumor in zip(first, second, third, strict=True):
        yield p1, np.maximum(p2, p_tumor), p_tumor


def pool_factor(p1: FloatArray, weight: float) -> FloatArray:
    """What stage 2's probability is multiplied by for the pool with stage 1's `p1`, whose root is taken of neither.

    p1^(1 - w) p2^w reaches a threshold t where p1^((1 - w) / w) p2 reaches t^(1 / w), `pooled_threshold`.
    """
    return np.power(p1, np.float32((1 - weight) / weight))


def pooled_threshold(threshold: float, weight: float) -> float:
    """What the product of `pool_factor` and stage 2's probability has to reach where their pool reaches `threshold`."""
    return float(threshold ** (1 / weight))


def liver_alone(coarse: CoarseLiver, full: Grid, box: Box, threshold: float) -> Fused:
    """Stage 1's liver on the part `box` of the grid `full`, without tumour."""
    liver = np.empty(box.shape, bool)
    for z, probability in enumerate(slabs(coarse.probability, coarse.grid, full, box)):
        liver[z] = probability >= threshold
    return Fused(liver, np.zeros_like(liver), full.cropped(box))


def clean_up(
    fused: Fused, minimum_lesion_mm3: float, roi: Volume | None = None, outline_share: float = 0.0
) -> tuple[LabelMap, tuple[str, ...]]:
    """The final classes and warnings.

    Liver: the largest 6-connected part, with its holes filled; other parts are dropped, one of at least `NOTABLE_SHARE`
    of the largest with a warning. Tumour: inside that liver, parts that are sure somewhere, drawn anew by the HU of
    `roi`, the scan on the grid of `fused`, unless `outline_share` is 0 (see `preprocess.outlines`), if they have
    `minimum_lesion_mm3` then.
    """
    numbered, sizes = components(fused.liver)
    order = np.argsort(-sizes[1:], kind="stable") + 1
    liver = fill_holes(numbered == order[0]) if order.size else fused.liver
    warnings = []
    if len(order) > 1 and sizes[order[1]] >= NOTABLE_SHARE * sizes[order[0]]:
        ml = [float(sizes[k] * fused.grid.voxel_ml) for k in order[:2]]
        warnings.append(f"liver in several parts: {ml[0]:.0f} mL kept, the next of {ml[1]:.0f} mL dropped")
    if ml_left_out := _beside(fused.gallbladder, liver) * fused.grid.voxel_ml:
        warnings.append(
            f"{ml_left_out:.1f} mL that looked like tumour was left out of liver and tumour as gallbladder, bowel or "
            "other fluid: as dark as water, at the liver's surface; it may be a cyst or a dead tumour, so look at it"
        )
    return _classes(liver, _lesions(fused, liver, minimum_lesion_mm3, roi, outline_share), fused.grid), tuple(warnings)


def _beside(bile: Mask | None, liver: Mask) -> int:
    """The voxels of those parts of `bile` that touch `liver`: others lie at parts of it that are dropped."""
    box = None if bile is None else Box.around(bile)
    if bile is None or box is None:
        return 0
    near = tuple(slice(max(0, axis.start - 1), axis.stop + 1) for axis in box.slices)
    parts, sizes = components(bile[near])
    touched = np.unique(parts[ndimage.binary_dilation(liver[near])])
    return int(sizes[touched[touched > 0]].sum())


def _lesions(fused: Fused, liver: Mask, minimum_mm3: float, roi: Volume | None, share: float) -> Mask:
    """The tumours that count inside `liver`, as they are drawn in the end."""
    out = np.zeros_like(liver)
    box = Box.around(fused.tumor & liver)
    if box is None:
        return out
    near = box.grown(AROUND_MM[1], fused.grid).slices
    inside = liver[near]
    tumor = fused.tumor[near] & inside
    parts, sizes = components(tumor)
    keep = np.ones(len(sizes), bool)
    if fused.sure is not None:
        keep = np.bincount(parts[fused.sure[near]], minlength=len(sizes)) > 0
    keep[0] = False
    if roi is not None and fused.possible is not None and share:
        seen = Seen(fused.possible[near] & inside, inside & ~tumor, roi.array[near], fused.grid.spacing_mm)
        parts = outlined(parts, keep, seen, share)
        sizes = np.bincount(parts.ravel(), minlength=len(sizes))
    keep &= sizes >= minimum_mm3 / (1000 * fused.grid.voxel_ml) - 1e-6  # to a millionth: it is a quotient
    out[near] = keep[parts]
    return out


def final_liver(liver: Mask) -> Mask:
    """The liver that `clean_up` leaves of `liver`, without a word about what it drops."""
    return fill_holes(largest(liver))


def pasted(part: LabelMap, box: Box, full: Grid) -> LabelMap:
    """`part` at its place in a map of the whole scan; background elsewhere."""
    array = np.zeros(full.shape, np.uint8)
    array[box.slices] = part.array
    return LabelMap(array, full)


def _classes(liver: Mask, tumor: Mask, grid: Grid) -> LabelMap:
    array = liver.astype(np.uint8) * np.uint8(LIVER)
    array[tumor & liver] = TUMOR
    return LabelMap(array, grid)
