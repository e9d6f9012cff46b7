"""What stage 2 is called, what its network tells apart, and the thresholds of its prediction."""

from __future__ import annotations

from dataclasses import dataclass

from preprocess.errors import UsageError

NAME = "tumor"

#: Output channels of the network: region k holds every class above k, so a tumour is liver too.
REGIONS = ("liver", "tumor")


@dataclass(frozen=True)
class TumorPolicy:
    """How the probabilities of both stages become classes.

    The liver is where the geometric mean of both stages' liver probabilities, stage 2's with the weight
    `stage2_weight` of 1, reaches `liver_threshold`, without the fat at its edge: what has gone less than `fat_share` of
    the way from the HU of fat to the liver's (`preprocess.edges`; 0: none is looked for). Tumour is where the plain
    geometric mean of stage 1's liver and stage 2's tumour reaches `tumor_threshold` inside that liver; lesions below
    `minimum_lesion_mm3`, and those that reach `tumor_peak` nowhere, are dropped (hysteresis, as in Canny, PAMI 1986).
    So are those that differ from the liver around by less than `minimum_contrast_hu` (`preprocess.lesions.contrasts`):
    what nobody could see there. One that is darker than it by `clear_contrast_hu` (least and most), as tumours mostly
    are, and has `clear_mm3` need only reach `clear_peak`; with 1 none does. Those that stay are drawn anew
    (`preprocess.outlines`): of the voxels near them that reach `outline_threshold` they hold those whose HU have gone
    `outline_share` of the way from the liver's to their own; 0 leaves them as the networks draw them. What is
    called tumour on the surface and is no brighter inside than `gallbladder_hu` is neither tumour nor liver
    (`stage2_tumor.gallbladder`). Stage 2 looks at most `reach_mm` beyond the liver of stage 1.
    """

    stage2_weight: float
    liver_threshold: float
    tumor_threshold: float
    tumor_peak: float
    minimum_lesion_mm3: float
    reach_mm: float
    minimum_contrast_hu: float
    clear_peak: float
    clear_contrast_hu: tuple[float, float]
    clear_mm3: float
    outline_threshold: float
    outline_share: float
    fat_share: float
    gallbladder_hu: float

    def __post_init__(self) -> None:
        if not 0 < self.stage2_weight <= 1:
            raise UsageError(f"policy.stage2_weight = {self.stage2_weight} must lie above 0, and not above 1")
        for name in ("liver_threshold", "tumor_threshold", "tumor_peak", "outline_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"policy.{name} = {getattr(self, name)} must lie between 0 and 1")
        if min(self.minimum_lesion_mm3, self.reach_mm, self.minimum_contrast_hu, self.clear_mm3) < 0:
            raise UsageError("policy.minimum_lesion_mm3, reach_mm, minimum_contrast_hu, clear_mm3 must not be negative")
        if not 0 < self.clear_peak <= 1:
            raise UsageError(f"policy.clear_peak = {self.clear_peak} must lie above 0, and not above 1")
        if not 0 <= self.clear_contrast_hu[0] <= self.clear_contrast_hu[1]:
            raise UsageError(
                f"policy.clear_contrast_hu = {list(self.clear_contrast_hu)} must be the least and the most, from 0"
            )
        for name in ("outline_share", "fat_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"policy.{name} = {getattr(self, name)} must be 0, or lie below 1")
