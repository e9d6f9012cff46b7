"""How synthetic tumours look: the ranges that `cascade/painting.py` draws them from."""

from __future__ import annotations

from dataclasses import dataclass

from preprocess.errors import UsageError


@dataclass(frozen=True)
class Lesions:
    """How synthetic tumours are drawn; ranges are uniform, the diameter's logarithm is.

    `share` of the patches get up to `most` of them; `bright_share` of these are brighter than the liver. Contrasts are
    HU against the liver around; `edge_mm` is the width over which a lesion fades into the liver.
    Raises UsageError for values that cannot work.
    """

    share: float
    most: int
    diameter_mm: tuple[float, float]
    dark_hu: tuple[float, float]
    bright_hu: tuple[float, float]
    bright_share: float
    rim_share: float
    core_share: float
    calcified_share: float
    edge_mm: tuple[float, float]

    def __post_init__(self) -> None:
        shares = (self.share, self.bright_share, self.rim_share, self.core_share, self.calcified_share)
        if not all(0 <= share <= 1 for share in shares):
            raise UsageError("lesions: every share must lie in 0..1")
        if self.most < 1:
            raise UsageError(f"lesions.most = {self.most} must be at least 1")
        for name in ("diameter_mm", "dark_hu", "bright_hu", "edge_mm"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UsageError(f"lesions.{name} = {[low, high]} must be positive, the smaller number first")
