"""What stage 1 is called, what its network tells apart, and the thresholds of its prediction."""

from __future__ import annotations

from dataclasses import dataclass

from preprocess.errors import UsageError

NAME = "liver"

#: Output channels of the network: region k holds every class above k.
REGIONS = ("liver",)


@dataclass(frozen=True)
class LiverPolicy:
    """How probabilities become a liver and a region of interest.

    `threshold` on the probability; a liver below `minimum_ml` counts as not found; the region of interest is the
    liver's bounding box with `margin_mm` more on each side.
    """

    threshold: float
    minimum_ml: float
    margin_mm: float

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UsageError(f"policy.threshold = {self.threshold} must lie between 0 and 1")
        if self.minimum_ml < 0 or self.margin_mm < 0:
            raise UsageError("policy.minimum_ml and policy.margin_mm must not be negative")
