"""Where the Dice went: from 1, step by step, down to the Dice of the final mask. Defined in `docs/report.md`.

The Dice of a sequence of masks, from the truth to the final one, are kept as fractions of voxel counts, so that the
losses of the steps add up to the whole loss exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from evaluate.overlap import Mask, Overlap, overlap
from evaluate.stage_masks import StageMasks


@dataclass(frozen=True)
class Step:
    """One kind of error: its `key` in files, a short `label` for tables and charts, and the `cause`
    as the subject of a sentence."""

    key: str
    label: str
    cause: str


#: What the liver loses, in the order of the stages; `StageMasks.liver_sequence` has the masks between them.
LIVER_STEPS = (
    Step("missed_by_stage1", "missed by stage 1", "stage 1: true liver that it misses"),
    Step("false_of_stage1", "false liver of stage 1", "stage 1: its false liver"),
    Step("stage2_inside", "stage 2, in the true liver", "stage 2: true liver that it takes away"),
    Step("stage2_outside", "stage 2, outside it", "stage 2: its false liver"),
    Step("cleanup", "clean-up", "clean-up: it"),
)

#: What the tumours lose, in the order of the stages; `StageMasks.tumor_sequence` has the masks between them.
TUMOR_STEPS = (
    Step("liver_not_found", "no liver found", "stage 1: a liver that it does not find"),
    Step("outside_roi", "outside the ROI", "the ROI: true tumour outside it"),
    Step("missed", "missed in a perfect ROI", "stage 2: true tumour that it misses even in the ROI of the true liver"),
    Step("own_roi", "own ROI, not the true one", "the ROI: true tumour that stage 2 misses in the cascade's own alone"),
    Step("outside_liver", "cut off by the liver", "the predicted liver: true tumour that it cuts off"),
    Step("false_inside", "false, in the liver", "stage 2: false tumour inside the true liver"),
    Step("false_outside", "false, outside the liver", "stage 2: false tumour outside the true liver"),
    Step("cleanup", "clean-up", "clean-up: it"),
)

#: The steps of each structure, by the names used in files.
STEPS = {"liver": LIVER_STEPS, "tumor": TUMOR_STEPS}


@dataclass(frozen=True)
class Waterfall:
    """`dice[0]` is 1, `dice[i]` the Dice when the first i `steps` have done their harm; the last is the final Dice.

    Raises ValueError when there is not one Dice more than steps.
    """

    steps: tuple[Step, ...]
    dice: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if len(self.dice) != len(self.steps) + 1:
            raise ValueError(f"{len(self.steps)} steps need one Dice more, not {len(self.dice)}")

    @property
    def losses(self) -> tuple[Fraction, ...]:
        """What each step loses, in Dice; below 0 where it gains. They add up to `loss` exactly."""
        return tuple(before - after for before, after in zip(self.dice, self.dice[1:], strict=False))

    @property
    def loss(self) -> Fraction:
        """What is lost in all: 1 minus the final Dice."""
        return self.dice[0] - self.dice[-1]


def liver_waterfall(masks: StageMasks) -> Waterfall:
    """The waterfall of the liver (label >= 1)."""
    return Waterfall(LIVER_STEPS, _dices(masks, masks.liver_sequence))


def tumor_waterfall(masks: StageMasks) -> Waterfall | None:
    """The waterfall of the tumours (label 2); None when they are not scored."""
    return Waterfall(TUMOR_STEPS, _dices(masks, masks.tumor_sequence)) if masks.scores_tumor else None


def mean_waterfall(waterfalls: Sequence[Waterfall]) -> Waterfall | None:
    """The mean over cases of waterfalls with the same steps; it adds up as they do. None without any."""
    if not waterfalls:
        return None
    levels = zip(*(waterfall.dice for waterfall in waterfalls), strict=True)
    return Waterfall(waterfalls[0].steps, tuple(sum(level, Fraction()) / len(waterfalls) for level in levels))


def _dices(masks: StageMasks, sequence: Callable[[int], tuple[Mask, ...]]) -> tuple[Fraction, ...]:
    """The Dice of every mask of a sequence against its first, the truth; slice by slice, to hold masks of one."""
    totals: list[Overlap] = []
    for z in range(masks.truth.grid.shape[0]):
        slices = sequence(z)
        counts = [overlap(mask, slices[0]) for mask in slices]
        totals = [a + b for a, b in zip(totals, counts, strict=True)] if totals else counts
    return tuple(_exact_dice(total) for total in totals)


def _exact_dice(total: Overlap) -> Fraction:
    """As `Overlap.dice`, which rounds; both empty is 1."""
    size = total.prediction + total.truth
    return Fraction(2 * total.both, size) if size else Fraction(1)
